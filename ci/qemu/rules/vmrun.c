// SPDX-License-Identifier: GPL-2.0-only
/*
 * VMRUN and #VMEXIT flush nothing, regardless of the state that they load, and the host's own flushes
 * do not affect its guests.
 */
#include "rules.h"

static void vmrun_vmexit_keep(struct vm *vm)
{
	static guest_code *const code[] = { g_nop, g_hlt, g_cpuid, g_rdmsr, g_in };
	static const u64 exits[] = { EXIT_VMMCALL, EXIT_HLT, EXIT_CPUID, EXIT_MSR, EXIT_IOIO };
	u32 i;

	vm->vmcb->intercept1 |= INTERCEPT_CPUID | INTERCEPT_IOIO;
	intercept_msrs(vm);
	memset((void *)vm->vmcb->iopm, 0xff, 3 * PAGE_SIZE);
	stale(vm, 0);
	for (i = 0; i < ARRAY_SIZE(code); i++) {
		guest(vm, code[i], 0x80, 0);
		expect(vm->vmcb->exit_code == exits[i], "exit code %lx, expected %lx",
		       vm->vmcb->exit_code, exits[i]);
		survives(vm, 0, "an exit");
	}
	guest(vm, g_load, gva(vm, 100), 0);
	expect(vm->vmcb->exit_code == EXIT_PF, "exit code %lx, expected a page fault",
	       vm->vmcb->exit_code);
	survives(vm, 0, "a page fault's exit");
	if (vm->mode != NPT_OFF) {
		*pte(vm, 100) = (vm->pa + 100 * PAGE_SIZE) | PT_P | PT_RW;
		guest(vm, g_load, gva(vm, 100), 0);
		expect(vm->vmcb->exit_code == EXIT_NPF,
		       "exit code %lx, expected a nested page fault", vm->vmcb->exit_code);
		survives(vm, 0, "a nested page fault's exit");
	}
	vm->vmcb->intercept2 &= ~INTERCEPT_VMRUN;
	invalid(vm);
	vm->vmcb->intercept2 |= INTERCEPT_VMRUN;
	survives(vm, 0, "a VMRUN that failed");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

/* The manual does not say whether a VMRUN that fails its checks flushes; the next one does. */
static void vmrun_failed_then_flush(struct vm *vm)
{
	stale(vm, 0);
	vm->vmcb->intercept2 &= ~INTERCEPT_VMRUN;
	invalid(vm);
	vm->vmcb->intercept2 |= INTERCEPT_VMRUN;
	flush_guest(vm);
	gone(vm, 0, "flush after a VMRUN that failed");
}

static void vmcb_ncr3_keeps(struct vm *vm)
{
	struct vm *b = vm_like(vm, 1);
	u64 ncr3 = vm->vmcb->ncr3;

	map_old(b, 0);
	stale(vm, 0);
	vm->vmcb->ncr3 = (u64)b->ncr3;
	flush(vm, KEEP);
	expect(load(vm, 0) == (config.model ? old_data(vm, 0) : old_data(b, 0)), "another nCR3");
	vm->vmcb->ncr3 = ncr3;
	survives(vm, 0, "the nCR3 it had");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

/* Map the page one to one, so that the guest reads the same with and without nested paging. */
static void vmcb_np_enable_keeps(struct vm *vm)
{
	u64 old = (u64)data_page(1), new = (u64)data_page(2);

	*pte(vm, 0) = old | PT_P | PT_RW;
	expect(load(vm, 0) == 1, "first access");
	*pte(vm, 0) = new | PT_P | PT_RW;
	vm->vmcb->np_enable = 0;
	expect(load(vm, 0) == (config.model ? 1 : 2), "nested paging turned off, not flushed");
	vm->vmcb->np_enable = 1;
	expect(load(vm, 0) == (config.model ? 1 : 2), "nested paging turned on again, not flushed");
	flush_guest(vm);
	expect(load(vm, 0) == 2, "flush");
	*pte(vm, 1) = old | PT_P | PT_RW;
	vm->vmcb->np_enable = 0;
	expect(load(vm, 1) == 1, "without nested paging, not touched before");
	flush_guest(vm);
}

static void vmcb_cr3_keeps(struct vm *vm)
{
	u64 *root = alloc(PAGE_SIZE);

	stale(vm, 0);
	memcpy(root, vm->cr3, PAGE_SIZE);
	vm->vmcb->cr3 = (u64)root;
	flush(vm, KEEP);
	survives(vm, 0, "CR3 in the VMCB");
	vm->vmcb->cr3 = (u64)vm->cr3;
	survives(vm, 0, "the CR3 it had");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

static void vmcb_cr0_keeps(struct vm *vm)
{
	stale(vm, 0);
	stale_global(vm, 1);
	vm->vmcb->cr0 = CR0_64 & ~CR0_WP;
	survives(vm, 0, "CR0.WP in the VMCB");
	vm->vmcb->cr0 = CR0_64 | CR0_CD;
	survives(vm, 0, "CR0.CD in the VMCB");
	vm->vmcb->cr0 = CR0_64 | CR0_CD | CR0_NW;
	survives(vm, 0, "CR0.CD and NW in the VMCB");
	to_32bit(vm, CR0_ET | CR0_PE, CR4_64);
	guest_ok(vm, g32_nop, 0, 0);
	to_64bit(vm);
	survives(vm, 0, "CR0.PG in the VMCB");
	survives(vm, 1, "CR0.PG in the VMCB, global");
	flush_guest(vm);
	gone(vm, 0, "flush");
	gone(vm, 1, "flush, global");
}

/* A hypervisor that changes CR0.WP in a VMCB must flush, because the right may be cached. */
static void vmcb_cr0_wp_stale(struct vm *vm)
{
	map_old(vm, 0);
	*pte(vm, 0) &= ~PT_RW;
	vm->vmcb->cr0 = CR0_64 & ~CR0_WP;
	store(vm, 0, 1, EXIT_VMMCALL);
	vm->vmcb->cr0 = CR0_64;
	store(vm, 0, 2, config.model ? EXIT_VMMCALL : EXIT_PF);
	flush_guest(vm);
	store(vm, 0, 3, EXIT_PF);
	/* The opposite change is harmless, because a walk confirms the fault. */
	load(vm, 0);
	vm->vmcb->cr0 = CR0_64 & ~CR0_WP;
	store(vm, 0, 4, EXIT_VMMCALL);
}

static void vmcb_cr4_keeps(struct vm *vm)
{
	static const u64 flip[] = { CR4_PGE, CR4_PSE, CR4_SMEP, CR4_SMAP, CR4_PKE };
	u32 i;

	stale(vm, 0);
	stale_global(vm, 1);
	for (i = 0; i < ARRAY_SIZE(flip); i++) {
		vm->vmcb->cr4 ^= flip[i];
		flush(vm, KEEP);
		survives(vm, 0, "CR4 in the VMCB");
		vm->vmcb->cr4 ^= flip[i];
		survives(vm, 1, "CR4 in the VMCB, global");
	}
	to_32bit(vm, CR0_ET | CR0_PE, 0);
	guest_ok(vm, g32_nop, 0, 0);
	to_64bit(vm);
	survives(vm, 0, "CR4.PAE in the VMCB");
	survives(vm, 1, "CR4.PAE in the VMCB, global");
	flush_guest(vm);
	gone(vm, 0, "flush");
	gone(vm, 1, "flush, global");
}

static void vmcb_efer_keeps(struct vm *vm)
{
	stale(vm, 0);
	stale_global(vm, 1);
	vm->vmcb->efer &= ~EFER_NXE;
	survives(vm, 0, "EFER.NXE in the VMCB");
	vm->vmcb->efer |= EFER_NXE;
	survives(vm, 1, "EFER.NXE in the VMCB, global");
	flush_guest(vm);
	gone(vm, 0, "flush");
	gone(vm, 1, "flush, global");
}

static void vmcb_asid_back_and_forth(struct vm *vm)
{
	u32 asid;

	stale(vm, 0);
	for (asid = 2; asid < 8; asid++) {
		vm->vmcb->asid = asid;
		flush(vm, KEEP);
	}
	vm->vmcb->asid = 1;
	survives(vm, 0, "other ASIDs in between");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

/* Outside a guest the current ASID is 0. */
static void host_flushes_host_only(struct vm *vm)
{
	u64 cr4 = read_cr(4), efer = rdmsr(MSR_EFER), cr0 = read_cr(0);

	stale(vm, 0);
	stale_global(vm, 1);
	invlpg(gva(vm, 0));
	survives(vm, 0, "INVLPG of the host");
	write_cr(3, read_cr(3));
	survives(vm, 0, "MOV CR3 of the host");
	write_cr(4, cr4 ^ CR4_PGE);
	write_cr(4, cr4);
	survives(vm, 1, "CR4.PGE of the host, global");
	write_cr(0, cr0 ^ CR0_WP);
	write_cr(0, cr0);
	survives(vm, 0, "CR0.WP of the host");
	wrmsr(MSR_EFER, efer ^ EFER_NXE);
	wrmsr(MSR_EFER, efer);
	survives(vm, 0, "EFER.NXE of the host");
	wrmsr(MSR_STAR, 0);
	survives(vm, 0, "an MSR that has nothing to do with paging");
	flush_guest(vm);
	gone(vm, 0, "flush");
	gone(vm, 1, "flush, global");
}

static void asid_0_invalid(struct vm *vm)
{
	stale(vm, 0);
	vm->vmcb->asid = 0;
	invalid(vm);
	vm->vmcb->tlb_control = FLUSH_ALL;
	invalid(vm);
	vm->vmcb->tlb_control = KEEP;
	vm->vmcb->asid = 1;
	flush_guest(vm);
	gone(vm, 0, "flush after a VMRUN that failed");
}

static void asid_count_invalid(struct vm *vm)
{
	u32 count = cpuid(0x8000000a, 0).b;

	map_old(vm, 0);
	vm->vmcb->asid = count - 1;
	expect(load(vm, 0) == old_data(vm, 0), "ASID %ld, the last one", (u64)count - 1);
	vm->vmcb->asid = count;
	invalid(vm);
	vm->vmcb->asid = ~0u;
	invalid(vm);
	vm->vmcb->asid = 1;
	expect(load(vm, 0) == old_data(vm, 0), "ASID 1 again");
}

/* A guest that steps ends with #DB; its flag stays in the VMCB, and the host has its own. */
static void single_step_exit(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;
	u64 flags, n;

	for (n = 0; n < 2; n++) {
		c->dr6 = 0xffff0ff0;
		vm->rflags = n ? RFLAGS_TF : 0;
		guest(vm, n ? g_read_cr0 : g_trap_flag, 0, 0);
		asm volatile("pushf; pop %0" : "=r"(flags) : : "memory");
		expect(c->exit_code == EXIT_EXCP(1), "exit code %lx, expected that of #DB", c->exit_code);
		expect(c->rip == (n ? (u64)g_read_cr0 + 3 : (u64)g_trap_flag_end), "RIP is %lx", c->rip);
		expect(c->rflags & RFLAGS_TF, "the guest's RFLAGS are %lx", c->rflags);
		expect(c->dr6 & 1 << 14, "the guest's DR6 is %lx", c->dr6);
		expect(!(flags & RFLAGS_TF), "the host's RFLAGS are %lx", flags);
	}
	vm->rflags = 0;
	guest_ok(vm, g_nop, 0, 0);
}

void vmrun_tests(void)
{
	static const struct test tests[] = {
		{ "single-step-exit", single_step_exit, ALL_MODES },
		{ "vmrun-vmexit-keep", vmrun_vmexit_keep, ALL_MODES },
		{ "vmrun-failed-then-flush", vmrun_failed_then_flush, ALL_MODES },
		{ "vmcb-ncr3-keeps", vmcb_ncr3_keeps, NESTED_TABLE },
		{ "vmcb-np-enable-keeps", vmcb_np_enable_keeps, GUEST_TABLE },
		{ "vmcb-cr3-keeps", vmcb_cr3_keeps, ALL_MODES },
		{ "vmcb-cr0-keeps", vmcb_cr0_keeps, ALL_MODES },
		{ "vmcb-cr0-wp-stale", vmcb_cr0_wp_stale, ALL_MODES },
		{ "vmcb-cr4-keeps", vmcb_cr4_keeps, ALL_MODES },
		{ "vmcb-efer-keeps", vmcb_efer_keeps, ALL_MODES },
		{ "vmcb-asid-back-and-forth", vmcb_asid_back_and_forth, ALL_MODES },
		{ "host-flushes-host-only", host_flushes_host_only, ALL_MODES },
		{ "asid-0-invalid", asid_0_invalid, ALL_MODES },
	};
	/* Stock QEMU takes every ASID. */
	static const struct test model[] = {
		{ "asid-count-invalid", asid_count_invalid, ALL_MODES },
	};

	run_tests("base", tests, ARRAY_SIZE(tests));
	if (config.model)
		run_tests("base", model, ARRAY_SIZE(model));
}
