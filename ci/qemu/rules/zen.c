// SPDX-License-Identifier: GPL-2.0-only
/* What every Zen has and QEMU's SVM does not: virtual VMLOAD and VMSAVE, TSC ratio, PAUSE filter, last branch records. */
#include "rules.h"

enum { DB = 1, UD = 6, GP = 13 };

#define MSR_KERNEL_GS_BASE	0xc0000102
#define KERNEL_GS_BASE		(0x620 / 8)	/* in a VMCB */

static bool svm_feature(u32 bit, const char *name)
{
	bool has = cpuid(0x8000000a, 0).d >> bit & 1;

	expect(has, "CPUID has no %s", name);
	return has;
}

static void ends(struct vm *vm, guest_code *code, u64 rdi, u64 rsi, u64 exit_code)
{
	u64 rax = guest(vm, code, rdi, rsi);

	expect(vm->vmcb->exit_code == exit_code,
	       "exit code %lx, expected %lx (RAX %lx, information %lx %lx)", vm->vmcb->exit_code,
	       exit_code, rax, vm->vmcb->exit_info1, vm->vmcb->exit_info2);
}

/* Virtual VMLOAD and VMSAVE */

static bool vls(struct vm *vm)
{
	vm->vmcb->lbr_ctl = V_VMLOAD_VMSAVE;
	/* Without the feature, the guest's address is the host's, and there may be no memory at it. */
	return svm_feature(15, "V_VMSAVE_VMLOAD");
}

/*
 * Two pages: the guest-physical address of the first leads to the second one.  It is in the first GB,
 * of which another test's guest with the same ASID may have left upper levels.
 */
struct two {
	u64 *first, *second;
};

static struct two two_pages(struct vm *vm)
{
	struct two t = { alloc(SIZE_2M), alloc(SIZE_2M) };

	memset(t.first, 0, PAGE_SIZE);
	memset(t.second, 0, PAGE_SIZE);
	*entry(vm->ncr3, (u64)t.first, 2) = (u64)t.second | PT_P | PT_RW | PT_US | PT_PS;
	flush_guest(vm);
	return t;
}

static void vls_vmsave(struct vm *vm)
{
	struct two t = two_pages(vm);

	if (!vls(vm))
		return;
	wrmsr(MSR_KERNEL_GS_BASE, 0x12345678);
	guest_ok(vm, g_vmsave, (u64)t.first, 0);
	expect(t.second[KERNEL_GS_BASE] == 0x12345678, "the page that the nested tables name has %lx",
	       t.second[KERNEL_GS_BASE]);
	expect(!t.first[KERNEL_GS_BASE], "the page with this system-physical address has %lx",
	       t.first[KERNEL_GS_BASE]);
}

static void vls_vmload(struct vm *vm)
{
	struct two t = two_pages(vm);
	u64 v;

	if (!vls(vm))
		return;
	t.first[KERNEL_GS_BASE] = 0x1111;
	t.second[KERNEL_GS_BASE] = 0x2222;
	guest_ok(vm, g_vmload, (u64)t.first, 0);
	v = rdmsr(MSR_KERNEL_GS_BASE);
	expect(v == 0x2222, "KERNEL_GS_BASE is %lx after VMLOAD", v);
}

/* Without virtualization and without an intercept, the guest reaches any page of the host. */
static void vls_disabled(struct vm *vm)
{
	struct two t = two_pages(vm);

	wrmsr(MSR_KERNEL_GS_BASE, 0x3333);
	guest_ok(vm, g_vmsave, (u64)t.first, 0);
	expect(t.first[KERNEL_GS_BASE] == 0x3333, "the page with this system-physical address has %lx",
	       t.first[KERNEL_GS_BASE]);
	expect(!t.second[KERNEL_GS_BASE], "the page that the nested tables name has %lx",
	       t.second[KERNEL_GS_BASE]);
}

static void vls_intercepted(struct vm *vm)
{
	struct two t = two_pages(vm);

	if (!vls(vm))
		return;
	vm->vmcb->intercept2 |= INTERCEPT_VMLOAD | INTERCEPT_VMSAVE;
	ends(vm, g_vmload, (u64)t.first, 0, EXIT_VMLOAD);
	ends(vm, g_vmsave, (u64)t.first, 0, EXIT_VMSAVE);
}

#define NPF_P		(1ul << 0)
#define NPF_W		(1ul << 1)
#define NPF_US		(1ul << 2)
#define NPF_FINAL	(1ul << 32)

static void vls_nested_fault(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;

	if (!vls(vm))
		return;
	ends(vm, g_vmload, vm->pa, 0, EXIT_NPF);
	expect(c->exit_info1 == (NPF_FINAL | NPF_US), "VMLOAD: EXITINFO1 %lx", c->exit_info1);
	expect((c->exit_info2 & ~0xffful) == vm->pa, "VMLOAD: EXITINFO2 %lx", c->exit_info2);
	/* MOV to RAX has 3 bytes. */
	expect(c->rip == (u64)g_vmload + 3, "VMLOAD: RIP %lx, expected %lx", c->rip, (u64)g_vmload + 3);
	ends(vm, g_vmsave, vm->pa, 0, EXIT_NPF);
	expect(c->exit_info1 == (NPF_FINAL | NPF_US | NPF_W), "VMSAVE: EXITINFO1 %lx", c->exit_info1);
	expect(c->rip == (u64)g_vmsave + 3, "VMSAVE: RIP %lx, expected %lx", c->rip, (u64)g_vmsave + 3);
}

static void vls_read_only(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;

	if (!vls(vm))
		return;
	map_old(vm, 0);
	*npte(vm, 0) &= ~PT_RW;
	memset(data_of(vm, 0), 0, PAGE_SIZE);
	guest_ok(vm, g_vmload, vm->pa, 0);
	ends(vm, g_vmsave, vm->pa, 0, EXIT_NPF);
	expect(c->exit_info1 == (NPF_FINAL | NPF_US | NPF_W | NPF_P), "EXITINFO1 %lx", c->exit_info1);
}

static void vls_dirty(struct vm *vm)
{
	if (!vls(vm))
		return;
	map_old(vm, 0);
	memset(data_of(vm, 0), 0, PAGE_SIZE);
	guest_ok(vm, g_vmload, vm->pa, 0);
	expect((*npte(vm, 0) & (PT_A | PT_D)) == PT_A, "after VMLOAD: %lx", *npte(vm, 0));
	guest_ok(vm, g_vmsave, vm->pa, 0);
	expect((*npte(vm, 0) & (PT_A | PT_D)) == (PT_A | PT_D), "after VMSAVE: %lx", *npte(vm, 0));
}

/* The translation is one of those that are cached by guest-physical address. */
static void vls_stale(struct vm *vm)
{
	u64 *before, *after;

	if (!vls(vm))
		return;
	map_old(vm, 0);
	guest_ok(vm, g_vmsave, vm->pa, 0);
	before = data_of(vm, 0);
	map_new(vm, 0);
	after = data_of(vm, 0);
	wrmsr(MSR_KERNEL_GS_BASE, 0x5555);
	invlpga(vm->pa, 1);
	guest_ok(vm, g_vmsave, vm->pa, 0);
	expect(before[KERNEL_GS_BASE] == 0x5555, "without a flush: the old page has %lx",
	       before[KERNEL_GS_BASE]);
	expect(!after[KERNEL_GS_BASE], "without a flush: the new page has %lx", after[KERNEL_GS_BASE]);
	flush_guest(vm);
	wrmsr(MSR_KERNEL_GS_BASE, 0x6666);
	guest_ok(vm, g_vmsave, vm->pa, 0);
	expect(before[KERNEL_GS_BASE] == 0x5555, "after a flush: the old page has %lx",
	       before[KERNEL_GS_BASE]);
	expect(after[KERNEL_GS_BASE] == 0x6666, "after a flush: the new page has %lx",
	       after[KERNEL_GS_BASE]);
}

/* There are no nested tables that could translate: the instructions exit. */
static void vls_npt_off(struct vm *vm)
{
	if (!vls(vm))
		return;
	ends(vm, g_vmload, (u64)data_page(0), 0, EXIT_VMLOAD);
	ends(vm, g_vmsave, (u64)data_page(0), 0, EXIT_VMSAVE);
}

static void vls_not_long_mode(struct vm *vm)
{
	struct two t = two_pages(vm);

	if (!vls(vm))
		return;
	to_32bit(vm, CR0_ET | CR0_PE, 0);
	ends(vm, g32_vmload, (u64)t.first, 0, EXIT_VMLOAD);
	ends(vm, g32_vmsave, (u64)t.first, 0, EXIT_VMSAVE);
}

static void vls_bad_address(struct vm *vm)
{
	if (!vls(vm))
		return;
	map_old(vm, 0);
	ends(vm, g_vmload, vm->pa + 8, 0, EXIT_EXCP(GP));
	ends(vm, g_vmsave, vm->pa + 8, 0, EXIT_EXCP(GP));
	ends(vm, g_vmsave, 1ul << 62, 0, EXIT_EXCP(GP));
}

/* TSC ratio */

#define MSR_TSC_RATIO	0xc0000104
#define RATIO_1		(1ul << 32)

static void tsc_ratio_cpuid(struct vm *vm)
{
	(void)vm;
	svm_feature(4, "TscRateMsr");
}

static void tsc_ratio_msr(struct vm *vm)
{
	static const u64 good[] = { 0, 1, RATIO_1 + RATIO_1 / 2, 0xfffffffffful, RATIO_1 };
	u64 v = rdmsr(MSR_TSC_RATIO);
	u32 bit, i;

	expect(v == RATIO_1, "the ratio is %lx after reset", v);
	for (i = 0; i < ARRAY_SIZE(good); i++) {
		guest_ok(vm, g_wrmsr, MSR_TSC_RATIO, good[i]);
		v = rdmsr(MSR_TSC_RATIO);
		expect(v == good[i], "the ratio is %lx, expected %lx", v, good[i]);
	}
	for (bit = 40; bit < 64; bit++)
		ends(vm, g_wrmsr, MSR_TSC_RATIO, RATIO_1 | 1ul << bit, EXIT_EXCP(GP));
	v = rdmsr(MSR_TSC_RATIO);
	expect(v == RATIO_1, "the ratio is %lx after #GP", v);
}

static u64 scale(u64 tsc, u64 ratio)
{
	return (unsigned __int128)tsc * ratio >> 32;
}

static void tsc_ratio_guest(struct vm *vm)
{
	static const u64 ratios[] = { RATIO_1, 2 * RATIO_1, RATIO_1 / 2, RATIO_1 + RATIO_1 / 4, 200 * RATIO_1, 1, 0 };
	u64 before, after, v, offset;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(ratios); i++) {
		for (offset = 0; offset <= 1ul << 60; offset += 1ul << 60) {
			vm->vmcb->tsc_offset = offset;
			wrmsr(MSR_TSC_RATIO, ratios[i]);
			before = rdtsc();
			v = guest(vm, g_rdtsc, 0, 0);
			after = rdtsc();
			expect(v >= scale(before, ratios[i]) + offset && v <= scale(after, ratios[i]) + offset,
			       "ratio %lx, offset %lx: the guest reads %lx at a TSC from %lx to %lx",
			       ratios[i], offset, v, before, after);
			v = guest(vm, g_rdtscp, 0, 0);
			expect(v >= scale(after, ratios[i]) + offset && v <= scale(rdtsc(), ratios[i]) + offset,
			       "ratio %lx, offset %lx: RDTSCP reads %lx after %lx", ratios[i], offset, v, after);
		}
	}
	wrmsr(MSR_TSC_RATIO, RATIO_1);
}

/* The host's own TSC does not change with the ratio. */
static void tsc_ratio_host(struct vm *vm)
{
	u64 before = rdtsc(), v;

	(void)vm;
	wrmsr(MSR_TSC_RATIO, 200 * RATIO_1);
	v = rdtsc();
	wrmsr(MSR_TSC_RATIO, RATIO_1);
	expect(v >= before && v < 100 * before, "the host reads %lx after %lx", v, before);
	wrmsr(MSR_TSC_RATIO, 0);
	v = rdtsc();
	wrmsr(MSR_TSC_RATIO, RATIO_1);
	expect(v >= before, "the host reads %lx after %lx", v, before);
}

/* PAUSE filter */

static void pause_filter_cpuid(struct vm *vm)
{
	(void)vm;
	svm_feature(10, "PauseFilter");
	svm_feature(12, "PauseFilterThreshold");
}

static void pauses(struct vm *vm, u64 n, u64 done, u64 exit_code)
{
	u64 v = guest(vm, g_pause, n, 0);

	expect(vm->vmcb->exit_code == exit_code, "%ld times PAUSE: exit code %lx", n, vm->vmcb->exit_code);
	expect(v == done, "%ld times PAUSE: %ld were executed, expected %ld", n, v, done);
}

static void pause_filter_count(struct vm *vm)
{
	vm->vmcb->intercept1 |= INTERCEPT_PAUSE;
	vm->vmcb->pause_count = 10;
	pauses(vm, 10, 10, EXIT_VMMCALL);
	/* VMRUN loads the count anew. */
	pauses(vm, 10, 10, EXIT_VMMCALL);
	pauses(vm, 11, 10, EXIT_PAUSE);
	vm->vmcb->pause_count = 0xffff;
	pauses(vm, 0xffff, 0xffff, EXIT_VMMCALL);
	expect(vm->vmcb->pause_count == 0xffff, "#VMEXIT wrote the count back");
}

static void pause_filter_zero(struct vm *vm)
{
	vm->vmcb->intercept1 |= INTERCEPT_PAUSE;
	pauses(vm, 1, 0, EXIT_PAUSE);
	vm->vmcb->pause_threshold = 1;
	pauses(vm, 1, 0, EXIT_PAUSE);
}

static void pause_filter_no_intercept(struct vm *vm)
{
	vm->vmcb->pause_count = 3;
	pauses(vm, 100, 100, EXIT_VMMCALL);
}

/* Each PAUSE comes more than a cycle after the one before. */
static void pause_filter_threshold(struct vm *vm)
{
	vm->vmcb->intercept1 |= INTERCEPT_PAUSE;
	vm->vmcb->pause_count = 3;
	vm->vmcb->pause_threshold = 1;
	pauses(vm, 1000, 1000, EXIT_VMMCALL);
}

/* A tight loop is one in spite of a threshold; QEMU may be held up now and then. */
static void pause_filter_tight_loop(struct vm *vm)
{
	vm->vmcb->intercept1 |= INTERCEPT_PAUSE;
	vm->vmcb->pause_count = 3;
	vm->vmcb->pause_threshold = 0xffff;
	ends(vm, g_pause, 1000000, 0, EXIT_PAUSE);
}

/* Last branch records */

#define MSR_DEBUGCTL		0x1d9
#define MSR_LAST_BRANCH_FROM	0x1db
#define MSR_LAST_BRANCH_TO	0x1dc
#define MSR_LAST_INT_FROM	0x1dd
#define MSR_LAST_INT_TO		0x1de
#define LBR			1

static void lbrv_cpuid(struct vm *vm)
{
	(void)vm;
	svm_feature(1, "LbrVirt");
}

static void with_lbr(struct vm *vm)
{
	vm->vmcb->lbr_ctl = V_LBR;
	vm->vmcb->dbgctl = LBR;
	vm->vmcb->br_from = vm->vmcb->br_to = 0;
}

/* Labels of guest.S: the branch and its target; the guest ends with VMMCALL without another branch. */
#define BRANCH(name)	{ #name, g_lbr_##name, g_lbr_##name##_from, g_lbr_##name##_to }
static const struct branch {
	const char *name;
	guest_code *code;
	char *from, *to;
} branches[] = {
	BRANCH(jmp), BRANCH(jmp_reg), BRANCH(jmp_mem), BRANCH(jnz), BRANCH(jrcxz), BRANCH(loop),
	BRANCH(call), BRANCH(call_reg), BRANCH(ret), BRANCH(iret), BRANCH(lret),
};

static void lbrv_branches(struct vm *vm)
{
	const struct branch *b;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(branches); i++) {
		b = &branches[i];
		vm->vmcb->gdtr = (struct vmcb_seg){ .limit = gdt_end - gdt - 1, .base = (u64)gdt };
		with_lbr(vm);
		guest_ok(vm, b->code, 0, 0);
		expect(vm->vmcb->br_from == (u64)b->from && vm->vmcb->br_to == (u64)b->to,
		       "%s: from %lx to %lx, expected %lx to %lx", b->name, vm->vmcb->br_from, vm->vmcb->br_to,
		       (u64)b->from, (u64)b->to);
		expect(vm->vmcb->dbgctl == LBR, "%s: DebugCtl is %lx", b->name, vm->vmcb->dbgctl);
	}
}

static void lbrv_not_taken(struct vm *vm)
{
	with_lbr(vm);
	guest_ok(vm, g_lbr_not_taken, 0, 0);
	expect(!vm->vmcb->br_from && !vm->vmcb->br_to, "from %lx to %lx", vm->vmcb->br_from, vm->vmcb->br_to);
}

static void lbrv_off_in_guest(struct vm *vm)
{
	with_lbr(vm);
	vm->vmcb->dbgctl = 0;
	guest_ok(vm, g_lbr_jmp, 0, 0);
	expect(!vm->vmcb->br_from && !vm->vmcb->br_to, "from %lx to %lx", vm->vmcb->br_from, vm->vmcb->br_to);
}

/* The host has a record of its own, which VMRUN and #VMEXIT leave alone. */
static void lbrv_host(struct vm *vm)
{
	u64 from, to;

	guest_ok(vm, g_lbr_record, 0, 0);
	from = rdmsr(MSR_LAST_BRANCH_FROM);
	to = rdmsr(MSR_LAST_BRANCH_TO);
	expect(from == (u64)g_lbr_record_from && to == (u64)g_lbr_record_to,
	       "not virtual: from %lx to %lx, expected %lx to %lx", from, to, (u64)g_lbr_record_from,
	       (u64)g_lbr_record_to);
	with_lbr(vm);
	guest_ok(vm, g_lbr_jmp, 0, 0);
	expect(rdmsr(MSR_DEBUGCTL) == 0, "the host's DebugCtl is %lx", rdmsr(MSR_DEBUGCTL));
	expect(rdmsr(MSR_LAST_BRANCH_FROM) == from && rdmsr(MSR_LAST_BRANCH_TO) == to,
	       "virtual: the host has from %lx to %lx", rdmsr(MSR_LAST_BRANCH_FROM), rdmsr(MSR_LAST_BRANCH_TO));
	vm->vmcb->br_from = 0x1234;
	vm->vmcb->br_to = 0x5678;
	vm->vmcb->dbgctl = 0;
	expect(guest(vm, g_rdmsr, MSR_LAST_BRANCH_FROM, 0) == 0x1234, "the guest has from %lx", vm->vmcb->rax);
	expect(guest(vm, g_rdmsr, MSR_LAST_BRANCH_TO, 0) == 0x5678, "the guest has to %lx", vm->vmcb->rax);
}

/* Without virtualization, DebugCtl and the record are the same in the guest. */
static void lbrv_shared(struct vm *vm)
{
	u64 v;

	vm->vmcb->dbgctl = LBR;
	vm->vmcb->br_from = 0x1234;
	guest_ok(vm, g_lbr_record, 0, 0);
	guest_ok(vm, g_lbr_jmp, 0, 0);
	v = rdmsr(MSR_LAST_BRANCH_FROM);
	expect(v == (u64)g_lbr_record_from, "from %lx, expected %lx", v, (u64)g_lbr_record_from);
	expect(vm->vmcb->br_from == 0x1234, "#VMEXIT wrote %lx to the VMCB", vm->vmcb->br_from);
}

/* An exception is a branch, and what the last one was before it is kept. */
static void lbrv_exception(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;

	with_handlers(vm);
	with_lbr(vm);
	guest_ok(vm, g_lbr_ud2, 0, 0);
	expect(c->rax == UD, "RAX %lx", c->rax);
	expect(c->last_excp_from == (u64)g_lbr_ud2 && c->last_excp_to == (u64)g_lbr_ud2_from,
	       "before the exception: from %lx to %lx", c->last_excp_from, c->last_excp_to);
	expect(c->br_from == (u64)g_lbr_ud2_from && c->br_to == (u64)(g_handlers + 16 * UD),
	       "the exception: from %lx to %lx", c->br_from, c->br_to);
	expect(c->dbgctl == LBR, "DebugCtl is %lx", c->dbgctl);
}

/* #DB ends the recording, so that its handler can read the record. */
static void lbrv_debug_exception(struct vm *vm)
{
	with_handlers(vm);
	with_lbr(vm);
	vm->rflags = RFLAGS_TF;
	guest(vm, g_lbr_jmp, 0, 0);
	expect(vm->vmcb->exit_code == EXIT_VMMCALL && vm->vmcb->rax == DB, "exit code %lx, RAX %lx",
	       vm->vmcb->exit_code, vm->vmcb->rax);
	expect(!vm->vmcb->dbgctl, "DebugCtl is %lx", vm->vmcb->dbgctl);
}

static void lbrv_msrs(struct vm *vm)
{
	u32 msr;

	for (msr = MSR_LAST_BRANCH_FROM; msr <= MSR_LAST_INT_TO; msr++)
		ends(vm, g_wrmsr, msr, 0, EXIT_EXCP(GP));
	ends(vm, g_wrmsr, MSR_DEBUGCTL, 1 << 6, EXIT_EXCP(GP));
	guest_ok(vm, g_wrmsr, MSR_DEBUGCTL, 0);
}

void zen_tests(void)
{
	static const struct test vls[] = {
		{ "vls-vmsave", vls_vmsave, NESTED_TABLE },
		{ "vls-vmload", vls_vmload, NESTED_TABLE },
		{ "vls-disabled", vls_disabled, NESTED_TABLE },
		{ "vls-intercepted", vls_intercepted, NESTED_TABLE },
		{ "vls-nested-fault", vls_nested_fault, NESTED_TABLE },
		{ "vls-read-only", vls_read_only, NESTED_TABLE },
		{ "vls-dirty", vls_dirty, NESTED_TABLE },
		{ "vls-stale", vls_stale, NESTED_TABLE },
		{ "vls-npt-off", vls_npt_off, NPT_OFF },
		{ "vls-not-long-mode", vls_not_long_mode, NESTED_TABLE },
		{ "vls-bad-address", vls_bad_address, NESTED_TABLE },
	};
	static const struct test tsc_ratio[] = {
		{ "tsc-ratio-cpuid", tsc_ratio_cpuid, 0 },
		{ "tsc-ratio-msr", tsc_ratio_msr, NPT_OFF },
		{ "tsc-ratio-guest", tsc_ratio_guest, NPT_OFF },
		{ "tsc-ratio-host", tsc_ratio_host, 0 },
	};
	static const struct test pause_filter[] = {
		{ "pause-filter-cpuid", pause_filter_cpuid, 0 },
		{ "pause-filter-count", pause_filter_count, NPT_OFF },
		{ "pause-filter-zero", pause_filter_zero, NPT_OFF },
		{ "pause-filter-no-intercept", pause_filter_no_intercept, NPT_OFF },
		{ "pause-filter-threshold", pause_filter_threshold, NPT_OFF },
		{ "pause-filter-tight-loop", pause_filter_tight_loop, NPT_OFF },
	};
	static const struct test lbrv[] = {
		{ "lbrv-cpuid", lbrv_cpuid, 0 },
		{ "lbrv-branches", lbrv_branches, NPT_OFF },
		{ "lbrv-not-taken", lbrv_not_taken, NPT_OFF },
		{ "lbrv-off-in-guest", lbrv_off_in_guest, NPT_OFF },
		{ "lbrv-host", lbrv_host, NPT_OFF },
		{ "lbrv-shared", lbrv_shared, NPT_OFF },
		{ "lbrv-exception", lbrv_exception, NPT_OFF },
		{ "lbrv-debug-exception", lbrv_debug_exception, NPT_OFF },
		{ "lbrv-msrs", lbrv_msrs, NPT_OFF },
	};

	run_tests("vls", vls, ARRAY_SIZE(vls));
	run_tests("tsc-ratio", tsc_ratio, ARRAY_SIZE(tsc_ratio));
	run_tests("pause-filter", pause_filter, ARRAY_SIZE(pause_filter));
	run_tests("lbrv", lbrv, ARRAY_SIZE(lbrv));
}
