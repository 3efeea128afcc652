// SPDX-License-Identifier: GPL-2.0-only
/* INVLPGB and TLBSYNC: flushes of any ASID, from the host or from a guest, on all processors. */
#include "rules.h"

#define UD	6
#define GP	13

/* Of one ASID: with its nested translations, so that it is gone in all modes */
#define ADDRESSES	(VALID_VA | VALID_ASID | INCLUDE_NESTED)
#define EVERYTHING	(VALID_ASID | INCLUDE_NESTED)

/* start.S: handlers that skip INVLPGB or TLBSYNC, and the vector of the exception */
extern char skip_ud[], skip_gp[];
extern u64 skipped_vector;
u64 skipped_vector;

static void expect_faults(bool expected)
{
	skipped_vector = 0;
	cpu_handle_exception(UD, expected ? skip_ud : NULL);
	cpu_handle_exception(GP, expected ? skip_gp : NULL);
}

/* Return the vector of the exception that it raises in the host, or 0. */
u64 invlpgb_fault(u64 rax, u64 edx_ecx)
{
	u64 vector;

	expect_faults(true);
	asm volatile("invlpgb" : : "a"(rax), "c"((u32)edx_ecx), "d"(edx_ecx >> 32) : "memory");
	vector = skipped_vector;
	expect_faults(false);
	return vector;
}

void invlpgb(u64 rax, u64 edx_ecx)
{
	u64 vector = invlpgb_fault(rax, edx_ecx);

	expect(!vector, "INVLPGB %lx, EDX and ECX %lx, raised exception %ld", rax, edx_ecx, vector);
}

static void tlbsync(void)
{
	u64 vector;

	expect_faults(true);
	asm volatile("tlbsync" : : : "memory");
	vector = skipped_vector;
	expect_faults(false);
	expect(!vector, "TLBSYNC raised exception %ld", vector);
}

static void ends(struct vm *vm, guest_code *code, u64 rdi, u64 rsi, u64 exit_code)
{
	guest(vm, code, rdi, rsi);
	expect(vm->vmcb->exit_code == exit_code, "exit code %lx, expected %lx (RDI %lx, RSI %lx)",
	       vm->vmcb->exit_code, exit_code, rdi, rsi);
}

static u32 asids(void)
{
	return cpuid(0x8000000a, 0).b;
}

static void invlpgb_cpuid(struct vm *vm)
{
	struct cpuid c = cpuid(0x80000008, 0);

	(void)vm;
	expect(c.b >> 3 & 1, "CPUID has no INVLPGB");
	expect(c.b >> 21 & 1, "CPUID says that INVLPGB flushes no nested translations");
	expect((c.d & 0xffff) == config.invlpgb_count, "count: %ld, expected %ld",
	       (u64)c.d & 0xffff, (u64)config.invlpgb_count);
	expect(cpuid(0x8000000a, 0).d >> 24 & 1, "CPUID has no control over guests' INVLPGB");
}

static void invlpgb_asid(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale_global(vm, 1);
	stale(b, 0);
	invlpgb(EVERYTHING, ASID(1));
	gone(vm, 0, "INVLPGB of the ASID");
	survives(vm, 1, "INVLPGB of the ASID, global");
	survives(b, 0, "INVLPGB of another ASID");
	invlpgb(EVERYTHING | INCLUDE_GLOBAL, ASID(1));
	gone(vm, 1, "INVLPGB of the ASID with global");
	survives(b, 0, "INVLPGB of another ASID with global");
}

static void invlpgb_any_asid(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale_global(vm, 1);
	stale(b, 0);
	/* EDX does not count. */
	invlpgb(INCLUDE_NESTED, ASID(1));
	gone(vm, 0, "INVLPGB of all ASIDs");
	gone(b, 0, "INVLPGB of all ASIDs");
	survives(vm, 1, "INVLPGB of all ASIDs, global");
	invlpgb(INCLUDE_NESTED | INCLUDE_GLOBAL, 0);
	gone(vm, 1, "INVLPGB of all ASIDs with global");
}

static void invlpgb_address(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale(vm, 1);
	stale_global(vm, 2);
	stale(b, 0);
	invlpgb(gva(vm, 0) | ADDRESSES, ASID(1));
	gone(vm, 0, "INVLPGB of a page");
	survives(vm, 1, "INVLPGB of another page");
	invlpgb(gva(vm, 2) | ADDRESSES, ASID(1));
	survives(vm, 2, "INVLPGB of a page, global");
	invlpgb(gva(vm, 2) | ADDRESSES | INCLUDE_GLOBAL, ASID(1));
	gone(vm, 2, "INVLPGB of a page with global");
	survives(b, 0, "INVLPGB of a page of another ASID");
	invlpgb(gva(b, 0) | VALID_VA | INCLUDE_NESTED, 0);
	gone(b, 0, "INVLPGB of a page of all ASIDs");
	/* Without "valid", the address does not count. */
	invlpgb(gva(vm, 7) | EVERYTHING, ASID(1));
	gone(vm, 1, "INVLPGB of an address that is not valid");
}

static void invlpgb_range(struct vm *vm)
{
	u64 n;

	for (n = 0; n < 6; n++)
		stale(vm, n);
	invlpgb(gva(vm, 1) | ADDRESSES, ASID(1) | 3);
	survives(vm, 0, "the page before the range");
	for (n = 1; n < 5; n++)
		gone(vm, n, "INVLPGB of a range");
	survives(vm, 5, "the page after the range");
}

/* Only pages at the addresses in steps of 2 MB go. */
static void invlpgb_stride(struct vm *vm)
{
	static const u64 pages[] = { 0, 1, 511, 512, 513, 1024, 1025, 1536 };
	u64 i;

	for (i = 0; i < ARRAY_SIZE(pages); i++)
		stale(vm, pages[i]);
	invlpgb(gva(vm, 0) | ADDRESSES, ASID(1) | PMD_STRIDE | 2);
	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		if (pages[i] % 512 || pages[i] == 1536)
			survives(vm, pages[i], "INVLPGB with a stride of 2 MB");
		else
			gone(vm, pages[i], "INVLPGB with a stride of 2 MB");
	}
}

/* A 2 MB page, from any part of it */
static void invlpgb_large_page(struct vm *vm)
{
	u64 *leaf = entry(vm->cr3, vm->va, 2), *old, *new, v;
	u64 flags = PT_P | PT_RW | PT_PS;
	static const struct {
		long first;
		u64 more;
		bool gone;
	} cases[] = {
		{ -2, 1, false }, { 512, 3, false },
		{ -2, 2, true }, { 511, 1, true }, { 100, 0, true },
	};
	u64 i;

	if (vm->mode != NPT_OFF) {
		*leaf = vm->pa | flags;
		leaf = entry(vm->ncr3, vm->pa, 2);
		flags |= PT_US;
	}
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		old = alloc(SIZE_2M);
		new = alloc(SIZE_2M);
		*old = 1;
		*new = 2;
		*leaf = (u64)old | flags;
		flush_guest(vm);
		v = load(vm, 0);
		expect(v == 1, "first access: read %lx", v);
		*leaf = (u64)new | flags;
		invlpgb((vm->va + cases[i].first * (long)PAGE_SIZE) | ADDRESSES,
			ASID(1) | cases[i].more);
		v = load(vm, 0);
		if (cases[i].gone || !config.model)
			expect(v == 2, "case %ld: read %lx after INVLPGB of a part", i, v);
		else
			expect(v == 1, "case %ld: read %lx after INVLPGB of pages beside it", i, v);
	}
}

/*
 * Give the upper level another table, in which page 5 has the data of page 0.  The entry above the
 * old table is cached, but page 5 was never accessed.
 */
static void another_table(struct vm *vm)
{
	u64 *root = vm->mode == NESTED_TABLE ? vm->ncr3 : vm->cr3;
	u64 *pde = entry(root, vm->mode == NESTED_TABLE ? vm->pa : vm->va, 2);
	u64 *table = alloc(PAGE_SIZE);

	map_old(vm, 5);
	stale(vm, 0);
	memcpy(table, (void *)(*pde & PT_ADDR), PAGE_SIZE);
	table[5] = table[0];
	*pde = (*pde & ~PT_ADDR) | (u64)table;
}

static void uses_table(struct vm *vm, bool old, const char *what)
{
	u64 v = load(vm, 5), want = old && config.model ? old_data(vm, 5) : new_data(vm, 0);

	expect(v == want, "%s: read %lx, expected %lx", what, v, want);
}

static void invlpgb_final(struct vm *vm)
{
	another_table(vm);
	uses_table(vm, true, "not flushed");
	invlpgb(gva(vm, 5) | ADDRESSES | FINAL_ONLY, ASID(1));
	uses_table(vm, true, "INVLPGB of the final translation of a page");
	invlpgb(EVERYTHING | FINAL_ONLY, ASID(1));
	uses_table(vm, true, "INVLPGB of all final translations");
	invlpgb(gva(vm, 5) | ADDRESSES, ASID(1));
	uses_table(vm, false, "INVLPGB of a page");
}

static void invlpgb_upper_levels(struct vm *vm)
{
	another_table(vm);
	invlpgb(EVERYTHING, ASID(1));
	uses_table(vm, false, "INVLPGB of the ASID");
}

/* Translations of guest-physical addresses go only if they are asked for. */
static void invlpgb_nested(struct vm *vm)
{
	stale(vm, 0);
	stale(vm, 1);
	invlpgb(gva(vm, 0) | VALID_VA | VALID_ASID, ASID(1));
	survives(vm, 0, "INVLPGB of a page");
	invlpgb(VALID_ASID | INCLUDE_GLOBAL, ASID(1));
	survives(vm, 0, "INVLPGB of the ASID");
	invlpgb(gva(vm, 0) | ADDRESSES, ASID(1));
	gone(vm, 0, "INVLPGB of a page with nested translations");
	invlpgb(EVERYTHING, ASID(1));
	gone(vm, 1, "INVLPGB of the ASID with nested translations");
}

static void raises_gp(u64 rax, u64 edx_ecx, const char *what)
{
	u64 vector = invlpgb_fault(rax, edx_ecx);

	expect(vector == GP, "%s (RAX %lx, EDX and ECX %lx) raised %ld, not #GP", what, rax, edx_ecx,
	       vector);
}

static void invlpgb_faults(struct vm *vm)
{
	u64 efer = rdmsr(MSR_EFER), all = gva(vm, 0) | ADDRESSES | INCLUDE_GLOBAL, i;

	stale(vm, 0);
	for (i = 6; i < 12; i++)
		raises_gp(all | 1ul << i, ASID(1), "a reserved bit of RAX");
	for (i = 16; i < 31; i++)
		raises_gp(all, ASID(1) | 1ul << i, "a reserved bit of ECX");
	for (i = 28; i < 32; i++)
		raises_gp(all, ASID(1) | 1ul << (32 + i), "a reserved bit of EDX");
	i = ASID(1) | (config.invlpgb_count + 1);
	raises_gp(all, i, "a count above the maximum");
	raises_gp(VALID_ASID, i, "a count above the maximum, without an address,");
	raises_gp(all, ASID(asids()), "an ASID above the maximum");
	raises_gp(all, ASID(0xffff), "ASID 0xffff");
	raises_gp(all | VALID_PCID, ASID(1) | PCID(1), "a PCID without CR4.PCIDE");
	wrmsr(MSR_EFER, efer & ~EFER_SVME);
	raises_gp(all, ASID(1), "an ASID without EFER.SVME");
	i = invlpgb_fault(all, ASID(0));
	wrmsr(MSR_EFER, efer);
	expect(!i, "ASID 0 without EFER.SVME raised exception %ld", i);
	survives(vm, 0, "INVLPGB that raised #GP");

	/* What is not valid does not count. */
	invlpgb(VALID_VA | VALID_ASID | VALID_PCID, ASID(0) | PCID(0));
	invlpgb(VALID_VA, ASID(0xffff) | PCID(0xfff));
	invlpgb((1ul << 63) | VALID_VA | VALID_ASID, ASID(asids() - 1));
	invlpgb(VALID_VA | VALID_ASID, ASID(2) | config.invlpgb_count);
	survives(vm, 0, "INVLPGB of something else");
	invlpgb(all, ASID(1));
	gone(vm, 0, "INVLPGB");
}

/* The host's own translations, which are those of ASID 0 */
static void invlpgb_host(struct vm *vm)
{
	u64 at = (u64)alloc(SIZE_2M), *other = alloc(SIZE_2M);
	u64 *pde = entry((u64 *)read_cr(3), at, 2), old = *pde;

	(void)vm;
	*(volatile u64 *)at = 1;
	*other = 2;
	*pde = (old & ~PT_ADDR) | (u64)other;
	invlpgb(at | VALID_VA | VALID_ASID, ASID(0));
	tlbsync();
	expect(*(volatile u64 *)at == 2, "the host reads %lx after INVLPGB", *(volatile u64 *)at);
	*pde = old;
	invlpgb(VALID_ASID, ASID(0));
	tlbsync();
	expect(*(volatile u64 *)at == 1, "the host reads %lx after INVLPGB without an address",
	       *(volatile u64 *)at);
}

/* Without the bit in the VMCB there are no such instructions, whatever is intercepted. */
static void invlpgb_guest_disabled(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;

	stale(vm, 0);
	ends(vm, g_invlpgb, INCLUDE_GLOBAL, 0, EXIT_EXCP(UD));
	ends(vm, g_tlbsync, 0, 0, EXIT_EXCP(UD));
	c->intercept3 = INTERCEPT_INVLPGB | INTERCEPT_INVLPGB_ILLEGAL | INTERCEPT_TLBSYNC;
	ends(vm, g_invlpgb, INCLUDE_GLOBAL, 0, EXIT_EXCP(UD));
	ends(vm, g_tlbsync, 0, 0, EXIT_EXCP(UD));
	survives(vm, 0, "INVLPGB that raised #UD");
	c->intercept3 = 0;
	c->np_enable |= ENABLE_INVLPGB;
	ends(vm, g_invlpgb, INCLUDE_GLOBAL, 0, EXIT_VMMCALL);
	ends(vm, g_tlbsync, 0, 0, EXIT_VMMCALL);
	gone_for_guest(vm, 0, "INVLPGB");
}

/* A guest reaches its own ASID, whatever it asks for, and no nested translations. */
static void invlpgb_guest(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2), *host = vm_like(vm, 3);
	u64 n;

	vm->vmcb->np_enable |= ENABLE_INVLPGB;
	for (n = 0; n < 4; n++)
		stale(vm, n);
	stale(b, 0);
	stale(host, 0);
	guest_ok(vm, g_invlpgb, gva(vm, 0) | VALID_VA | VALID_ASID, ASID(0));
	gone_for_guest(vm, 0, "the guest's INVLPGB of a page, ASID 0");
	survives(vm, 1, "the guest's INVLPGB of another page");
	guest_ok(vm, g_invlpgb, gva(vm, 1) | VALID_VA | VALID_ASID, ASID(2));
	gone_for_guest(vm, 1, "the guest's INVLPGB of a page, another ASID");
	guest_ok(vm, g_invlpgb, gva(vm, 2) | VALID_VA, 0);
	gone_for_guest(vm, 2, "the guest's INVLPGB of a page, no ASID");
	guest_ok(vm, g_invlpgb, INCLUDE_GLOBAL | INCLUDE_NESTED, 0);
	gone_for_guest(vm, 3, "the guest's INVLPGB of everything");
	survives(b, 0, "INVLPGB of another guest");
	survives(host, 0, "INVLPGB of another guest");
	guest_ok(vm, g_tlbsync, 0, 0);
}

static void to_user(struct vm *vm)
{
	*entry(vm->cr3, 0x200000, 2) |= PT_US;
	vm->vmcb->cpl = 3;
	vm->vmcb->cs.attrib |= 3 << 5;
	vm->vmcb->ss.attrib |= 3 << 5;
}

/* What is no legal form for the host is none for a guest, even if its ASID is replaced. */
static const struct {
	u64 rax, edx_ecx;
} illegal[] = {
	{ 1 << 6, 0 }, { 1 << 11, 0 }, { 0, 1 << 16 }, { 0, 1 << 30 },
	{ 0, ASID(1u << 28) }, { 0, ASID(1u << 31) },
	{ VALID_VA, 0xffff }, { VALID_ASID, ASID(0xffff) }, { VALID_PCID, PCID(1) },
};

static void invlpgb_guest_faults(struct vm *vm)
{
	u64 i;

	vm->vmcb->np_enable |= ENABLE_INVLPGB;
	stale(vm, 0);
	for (i = 0; i < ARRAY_SIZE(illegal); i++)
		ends(vm, g_invlpgb, illegal[i].rax, illegal[i].edx_ecx, EXIT_EXCP(GP));
	survives(vm, 0, "INVLPGB that raised #GP");
	to_user(vm);
	ends(vm, g_invlpgb, 0, 0, EXIT_EXCP(GP));
	ends(vm, g_tlbsync, 0, 0, EXIT_EXCP(GP));
}

/* Neither is there in real mode.  The instructions have the same bytes there. */
static void invlpgb_real_mode(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;

	c->np_enable |= ENABLE_INVLPGB;
	ends(vm, g_tlbsync, 0, 0, EXIT_VMMCALL);
	to_32bit(vm, CR0_ET | CR0_PE, 0);
	ends(vm, g_tlbsync, 0, 0, EXIT_VMMCALL);
	to_32bit(vm, CR0_ET, 0);
	ends(vm, g_tlbsync, 0, 0, EXIT_EXCP(UD));
	ends(vm, g_invlpgb, 0, 0, EXIT_EXCP(UD));
}

static void exits(struct vm *vm, guest_code *code, u64 rdi, u64 rsi, u64 exit_code, u64 offset)
{
	struct vmcb *c = vm->vmcb;

	ends(vm, code, rdi, rsi, exit_code);
	expect(c->rip == (u64)code + offset && c->nrip == c->rip + 3,
	       "exit code %lx: RIP %lx, nRIP %lx", exit_code, c->rip, c->nrip);
}

/* Offset of INVLPGB in g_invlpgb */
#define OFFSET	12

static void invlpgb_intercepted(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;
	u64 i;

	c->np_enable |= ENABLE_INVLPGB;
	stale(vm, 0);
	c->intercept3 = INTERCEPT_INVLPGB | INTERCEPT_INVLPGB_ILLEGAL;
	exits(vm, g_invlpgb, INCLUDE_GLOBAL, 0, EXIT_INVLPGB, OFFSET);
	/* Before the exceptions */
	for (i = 0; i < ARRAY_SIZE(illegal); i++)
		exits(vm, g_invlpgb, illegal[i].rax, illegal[i].edx_ecx, EXIT_INVLPGB, OFFSET);
	c->intercept3 = INTERCEPT_INVLPGB_ILLEGAL;
	for (i = 0; i < ARRAY_SIZE(illegal); i++)
		exits(vm, g_invlpgb, illegal[i].rax, illegal[i].edx_ecx, EXIT_INVLPGB_ILLEGAL,
		      OFFSET);
	survives(vm, 0, "INVLPGB intercepted");
	guest_ok(vm, g_tlbsync, 0, 0);
	guest_ok(vm, g_invlpgb, INCLUDE_GLOBAL, 0);
	gone_for_guest(vm, 0, "a legal INVLPGB, with the intercept of illegal ones");
	c->intercept3 = INTERCEPT_TLBSYNC;
	exits(vm, g_tlbsync, 0, 0, EXIT_TLBSYNC, 0);
	guest_ok(vm, g_invlpgb, 0, 0);
	/* The exceptions due to the CPL come first. */
	c->intercept3 = INTERCEPT_INVLPGB | INTERCEPT_INVLPGB_ILLEGAL | INTERCEPT_TLBSYNC;
	to_user(vm);
	ends(vm, g_invlpgb, 0, 0, EXIT_EXCP(GP));
	ends(vm, g_invlpgb, 1 << 6, 0, EXIT_EXCP(GP));
	ends(vm, g_tlbsync, 0, 0, EXIT_EXCP(GP));
}

static void invlpgb_counters(struct vm *vm)
{
	u64 n, syncs;

	wrmsr(MSR_SELECT, 1);
	n = counter(C_INVLPGB);
	syncs = counter(C_TLBSYNC);
	vm->vmcb->np_enable |= ENABLE_INVLPGB;
	guest_ok(vm, g_invlpgb, 0, 0);
	guest_ok(vm, g_tlbsync, 0, 0);
	invlpgb(VALID_ASID, ASID(1));
	/* These are not of ASID 1. */
	invlpgb(VALID_ASID, ASID(2));
	invlpgb(0, ASID(1));
	tlbsync();
	expect(counter(C_INVLPGB) - n == 2, "invlpgb grew by %ld, expected 2",
	       counter(C_INVLPGB) - n);
	expect(counter(C_TLBSYNC) - syncs == 1, "tlbsync grew by %ld, expected 1",
	       counter(C_TLBSYNC) - syncs);
	wrmsr(MSR_SELECT, ~0ul);
}

/* A processor without the control: guests have both instructions, and TLBSYNC has no intercept. */
static void invlpgb_no_control(struct vm *vm)
{
	expect(!(cpuid(0x8000000a, 0).d >> 24 & 1), "CPUID has control over guests' INVLPGB");
	stale(vm, 0);
	vm->vmcb->intercept3 = INTERCEPT_TLBSYNC;
	guest_ok(vm, g_invlpgb_tlbsync, INCLUDE_GLOBAL, 0);
	gone_for_guest(vm, 0, "INVLPGB");
	vm->vmcb->intercept3 = INTERCEPT_INVLPGB;
	ends(vm, g_invlpgb, 0, 0, EXIT_INVLPGB);
}

/* A processor without flushes of nested translations */
static void invlpgb_no_nested(struct vm *vm)
{
	expect(!(cpuid(0x80000008, 0).b >> 21 & 1),
	       "CPUID says that INVLPGB flushes nested translations");
	stale(vm, 0);
	raises_gp(EVERYTHING, ASID(1), "INVLPGB with nested translations");
	survives(vm, 0, "INVLPGB that raised #GP");
	invlpgb(VALID_ASID, ASID(1));
	gone_for_guest(vm, 0, "INVLPGB");
}

/* Two processors: the second one runs a guest, or reads an address of the host. */
static struct vm *there;
static volatile u64 there_saw;

static void second_loads(void)
{
	there_saw = load(there, 0);
}

static void second_sees(struct vm *vm, bool old, const char *what)
{
	u64 want = old && config.model ? old_data(vm, 0) : new_data(vm, 0);

	there = vm;
	on_second_cpu(second_loads);
	expect(there_saw == want, "%s: the second processor read %lx with ASID %ld, expected %lx",
	       what, there_saw, (u64)vm->vmcb->asid, want);
}

/* Both processors have the old translation of page 0. */
static void cached_on_both(struct vm *vm)
{
	map_old(vm, 0);
	load(vm, 0);
	there = vm;
	on_second_cpu(second_loads);
	expect(there_saw == old_data(vm, 0), "first access on the second processor: read %lx",
	       there_saw);
	map_new(vm, 0);
	survives(vm, 0, "not flushed");
	second_sees(vm, true, "not flushed");
}

static void broadcast(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	cached_on_both(vm);
	cached_on_both(b);
	invlpgb(gva(vm, 0) | ADDRESSES, ASID(1));
	tlbsync();
	second_sees(vm, false, "INVLPGB of a page");
	gone(vm, 0, "INVLPGB of a page");
	second_sees(b, true, "INVLPGB of another ASID");
	survives(b, 0, "INVLPGB of another ASID");
	invlpgb(INCLUDE_NESTED, 0);
	tlbsync();
	second_sees(b, false, "INVLPGB of all ASIDs");
	gone(b, 0, "INVLPGB of all ASIDs");
}

static void guest_flushes(void)
{
	guest_ok(there, g_invlpgb_tlbsync, gva(there, 0) | VALID_VA | VALID_ASID, 0);
}

/* From a guest, on either processor */
static void broadcast_by_guest(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2), *again = vm_like(vm, 3);

	vm->vmcb->np_enable |= ENABLE_INVLPGB;
	again->vmcb->np_enable |= ENABLE_INVLPGB;
	cached_on_both(vm);
	cached_on_both(b);
	cached_on_both(again);
	guest_ok(vm, g_invlpgb_tlbsync, gva(vm, 0) | VALID_VA | VALID_ASID, 0);
	second_sees(vm, vm->mode == NESTED_TABLE, "the guest's INVLPGB");
	gone_for_guest(vm, 0, "the guest's INVLPGB");
	guest_ok(vm, g_invlpgb_tlbsync, INCLUDE_GLOBAL, ASID(2));
	second_sees(b, true, "another guest's INVLPGB");
	survives(b, 0, "another guest's INVLPGB");
	there = again;
	on_second_cpu(guest_flushes);
	gone_for_guest(again, 0, "the guest's INVLPGB on the second processor");
	second_sees(again, again->mode == NESTED_TABLE, "the guest's INVLPGB");
}

static void second_waits(void)
{
	there_saw = guest(there, g_wait, gva(there, 0), gva(there, 1));
}

/* The guest goes on without an exit, and sees what changed. */
static void broadcast_to_running(struct vm *vm)
{
	volatile u64 *rounds;

	map_old(vm, 0);
	map_old(vm, 1);
	rounds = data_of(vm, 1);
	*rounds = 0;
	there = vm;
	start_on_second_cpu(second_waits);
	while (*rounds < 100)
		asm volatile("pause");
	map_new(vm, 0);
	invlpgb(gva(vm, 0) | ADDRESSES, ASID(1));
	tlbsync();
	wait_for_second_cpu();
	expect(there_saw == new_data(vm, 0), "the running guest read %lx", there_saw);
}

static volatile u64 *host_address;

static void second_reads(void)
{
	there_saw = *host_address;
}

static void second_reads_in_host(u64 want, const char *what)
{
	on_second_cpu(second_reads);
	expect(there_saw == want, "%s: the host of the second processor read %lx", what, there_saw);
}

static void broadcast_to_host(struct vm *vm)
{
	u64 at = (u64)alloc(SIZE_2M), *other = alloc(SIZE_2M);
	u64 *pde = entry((u64 *)read_cr(3), at, 2), old = *pde;

	(void)vm;
	host_address = (u64 *)at;
	*host_address = 1;
	*other = 2;
	second_reads_in_host(1, "first access");
	*pde = (old & ~PT_ADDR) | (u64)other;
	invlpgb(at | VALID_VA | VALID_ASID, ASID(0));
	if (config.late)
		second_reads_in_host(1, "INVLPGB, no TLBSYNC");
	tlbsync();
	second_reads_in_host(2, "INVLPGB");
	*pde = old;
	invlpgb(at | VALID_VA | VALID_ASID, ASID(0));
	tlbsync();
	second_reads_in_host(1, "INVLPGB again");
}

#define ROUNDS	500

static void many_rounds(void)
{
	u64 i;

	for (i = 0; i < ROUNDS; i++) {
		asm volatile("invlpgb" : : "a"(VALID_ASID), "c"(0), "d"(1) : "memory");
		asm volatile("tlbsync" : : : "memory");
	}
}

/* Processors that wait for each other */
static void tlbsync_on_both(struct vm *vm)
{
	u64 n = counter(C_TLBSYNC);

	tlbsync();
	if (failed_so_far())
		return;
	cached_on_both(vm);
	start_on_second_cpu(many_rounds);
	many_rounds();
	wait_for_second_cpu();
	expect(counter(C_TLBSYNC) - n == ROUNDS + 1, "tlbsync grew by %ld", counter(C_TLBSYNC) - n);
	gone_for_guest(vm, 0, "INVLPGB");
	second_sees(vm, vm->mode == NESTED_TABLE, "INVLPGB");
}

/* In a guest without CR4.PCIDE */
static bool is_legal(u64 rax, u64 edx_ecx)
{
	u64 ecx = (u32)edx_ecx, edx = edx_ecx >> 32;

	return !(rax & 0xfc0) && !(ecx & 0x7fff0000) && !(edx & 0xf0000000) &&
	       (ecx & 0xffff) <= config.invlpgb_count &&
	       (!(rax & VALID_ASID) || (edx & 0xffff) < asids()) &&
	       (!(rax & VALID_PCID) || !(edx >> 16));
}

static u64 next_random(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static void random_operands(struct vm *vm, u64 seed)
{
	u64 rax, edx_ecx, how, i;

	for (i = 0; i < 400; i++) {
		rax = next_random(&seed);
		edx_ecx = next_random(&seed);
		how = next_random(&seed);
		/* Few are legal unless most bits that must be zero are. */
		if (how & 1)
			rax &= ~0xfc0ul;
		if (how & 2)
			edx_ecx &= 0x0fff001f8000000f;
		if (how & 4)
			edx_ecx &= 0xf000ffffffffffff;
		ends(vm, how & 8 ? g_invlpgb : g_invlpgb_tlbsync, rax, edx_ecx,
		     is_legal(rax, edx_ecx) ? EXIT_VMMCALL : EXIT_EXCP(GP));
	}
}

static void second_is_random(void)
{
	random_operands(there, 0x853c49e6748fea9b);
}

/* Two virtual processors of a guest use any operands at once, and reach no other guest. */
static void random_guest(struct vm *vm)
{
	struct vm *second = vm_like(vm, 1), *b = vm_like(vm, 2);

	cached_on_both(b);
	vm->vmcb->np_enable |= ENABLE_INVLPGB;
	second->vmcb->np_enable |= ENABLE_INVLPGB;
	there = second;
	start_on_second_cpu(second_is_random);
	random_operands(vm, 0xda3e39cb94b95bdb);
	wait_for_second_cpu();
	guest_ok(vm, g_tlbsync, 0, 0);
	survives(b, 0, "INVLPGBs of another guest");
	second_sees(b, true, "INVLPGBs of another guest");
}

static void second_syncs(void)
{
	tlbsync();
}

/* Other processors need not obey before the TLBSYNC of the processor that has executed INVLPGB. */
static void late(struct vm *vm)
{
	cached_on_both(vm);
	invlpgb(gva(vm, 0) | ADDRESSES, ASID(1));
	gone(vm, 0, "INVLPGB, no TLBSYNC");
	second_sees(vm, true, "INVLPGB, no TLBSYNC");
	on_second_cpu(second_syncs);
	second_sees(vm, true, "INVLPGB, TLBSYNC on another processor");
	tlbsync();
	second_sees(vm, false, "TLBSYNC");
}

/* An exit between a guest's INVLPGB and its TLBSYNC completes nothing. */
static void late_guest(struct vm *vm)
{
	vm->vmcb->np_enable |= ENABLE_INVLPGB;
	cached_on_both(vm);
	guest_ok(vm, g_invlpgb, VALID_ASID, 0);
	gone_for_guest(vm, 0, "the guest's INVLPGB, no TLBSYNC");
	second_sees(vm, true, "the guest's INVLPGB, no TLBSYNC");
	guest_ok(vm, g_tlbsync, 0, 0);
	second_sees(vm, vm->mode == NESTED_TABLE, "the guest's TLBSYNC");
}

/* The model remembers this many.  Others reach the second processor at any time. */
#define LATE_MAX	1024

static void late_for_ever(struct vm *vm)
{
	u64 i;

	cached_on_both(vm);
	for (i = 0; i < LATE_MAX; i++)
		invlpgb(EVERYTHING, ASID(1));
	second_sees(vm, true, "INVLPGB, no TLBSYNC");
	invlpgb(VALID_ASID, ASID(2));
	there = vm;
	for (i = 0; i < 1000 && there_saw != new_data(vm, 0); i++)
		on_second_cpu(second_loads);
	expect(there_saw == new_data(vm, 0),
	       "many INVLPGBs, no TLBSYNC: the second processor read %lx", there_saw);
	tlbsync();
}

void invlpgb_tests(void)
{
	static const struct test tests[] = {
		{ "invlpgb-cpuid", invlpgb_cpuid, 0 },
		{ "invlpgb-asid", invlpgb_asid, ALL_MODES },
		{ "invlpgb-any-asid", invlpgb_any_asid, ALL_MODES },
		{ "invlpgb-address", invlpgb_address, ALL_MODES },
		{ "invlpgb-range", invlpgb_range, ALL_MODES },
		{ "invlpgb-stride", invlpgb_stride, ALL_MODES },
		{ "invlpgb-large-page", invlpgb_large_page, ALL_MODES },
		{ "invlpgb-final", invlpgb_final, ALL_MODES },
		{ "invlpgb-upper-levels", invlpgb_upper_levels, ALL_MODES },
		{ "invlpgb-nested", invlpgb_nested, NESTED_TABLE },
		{ "invlpgb-faults", invlpgb_faults, ALL_MODES },
		{ "invlpgb-host", invlpgb_host, NPT_OFF },
		{ "invlpgb-guest-disabled", invlpgb_guest_disabled, ALL_MODES },
		{ "invlpgb-guest", invlpgb_guest, ALL_MODES },
		{ "invlpgb-guest-faults", invlpgb_guest_faults, ALL_MODES },
		{ "invlpgb-real-mode", invlpgb_real_mode, BOTH_NPT },
		{ "invlpgb-intercepted", invlpgb_intercepted, ALL_MODES },
		{ "invlpgb-counters", invlpgb_counters, NPT_OFF },
	};
	static const struct test no_control[] = {
		{ "invlpgb-no-control", invlpgb_no_control, ALL_MODES },
	};
	static const struct test no_nested[] = {
		{ "invlpgb-no-nested", invlpgb_no_nested, ALL_MODES },
	};
	static const struct test smp[] = {
		{ "invlpgb-broadcast", broadcast, ALL_MODES },
		{ "invlpgb-broadcast-by-guest", broadcast_by_guest, ALL_MODES },
		{ "invlpgb-broadcast-to-running", broadcast_to_running, ALL_MODES },
		{ "invlpgb-broadcast-to-host", broadcast_to_host, NPT_OFF },
		{ "tlbsync-on-both", tlbsync_on_both, ALL_MODES },
		{ "invlpgb-random-guest", random_guest, ALL_MODES },
	};
	static const struct test smp_late[] = {
		{ "invlpgb-late", late, ALL_MODES },
		{ "invlpgb-late-guest", late_guest, ALL_MODES },
		{ "invlpgb-late-for-ever", late_for_ever, NPT_OFF },
	};

	run_tests("invlpgb", tests, ARRAY_SIZE(tests));
	run_tests("invlpgb-no-control", no_control, ARRAY_SIZE(no_control));
	run_tests("invlpgb-no-nested", no_nested, ARRAY_SIZE(no_nested));
	run_tests("invlpgb-smp", smp, ARRAY_SIZE(smp));
	if (config.late)
		run_tests("invlpgb-smp", smp_late, ARRAY_SIZE(smp_late));
}
