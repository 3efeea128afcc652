// SPDX-License-Identifier: GPL-2.0-only
/* PCID and INVPCID: a guest's entries belong to one PCID, or are global. */
#include "rules.h"

#define GP		13
#define KEEP_PCID	(1ul << 63)	/* MOV CR3 */

/* INVPCID */
enum { ADDRESS, CONTEXT, ALL_AND_GLOBAL, ALL };

static struct {
	u64 pcid, va;
} descriptor __attribute__((aligned(16)));

static void ends(struct vm *vm, guest_code *code, u64 rdi, u64 rsi, u64 exit_code)
{
	u64 rax = guest(vm, code, rdi, rsi);

	expect(vm->vmcb->exit_code == exit_code,
	       "exit code %lx, expected %lx (RAX %lx, information %lx %lx)", vm->vmcb->exit_code,
	       exit_code, rax, vm->vmcb->exit_info1, vm->vmcb->exit_info2);
}

static void pcid_on(struct vm *vm)
{
	guest_ok(vm, g_write_cr4, CR4_64 | CR4_PCIDE, 0);
}

/* The guest goes to a PCID, without a flush. */
static void to(struct vm *vm, u64 pcid)
{
	guest_ok(vm, g_movcr3, (u64)vm->cr3 | pcid | KEEP_PCID, 0);
}

/* The guest reads a page with each of these PCIDs, and its translation changes after that. */
static void cached(struct vm *vm, u64 n, u64 flags, u64 one, u64 two)
{
	u64 v;

	map_old(vm, n);
	*pte(vm, n) |= flags;
	to(vm, one);
	v = load(vm, n);
	expect(v == old_data(vm, n), "page %ld, PCID %ld, first access: read %lx", n, one, v);
	to(vm, two);
	v = load(vm, n);
	expect(v == old_data(vm, n), "page %ld, PCID %ld, first access: read %lx", n, two, v);
	map_new(vm, n);
}

static void survives_in(struct vm *vm, u64 pcid, u64 n, const char *what)
{
	to(vm, pcid);
	survives(vm, n, what);
}

static void gone_in(struct vm *vm, u64 pcid, u64 n, const char *what)
{
	to(vm, pcid);
	gone_for_guest(vm, n, what);
}

static void invpcid(struct vm *vm, u64 type, u64 pcid, u64 va)
{
	descriptor.pcid = pcid;
	descriptor.va = va;
	guest_ok(vm, g_invpcid, type, (u64)&descriptor);
}

static void pcid_cpuid(struct vm *vm)
{
	(void)vm;
	expect(cpuid(1, 0).c >> 17 & 1, "CPUID has no PCID");
	expect(cpuid(7, 0).b >> 10 & 1, "CPUID has no INVPCID");
}

static void pcids_do_not_mix(struct vm *vm)
{
	pcid_on(vm);
	cached(vm, 0, 0, 1, 1);
	gone_in(vm, 2, 0, "another PCID");
	gone_in(vm, 0, 0, "PCID 0");
	gone_in(vm, 0xfff, 0, "PCID 0xfff");
	survives_in(vm, 1, 0, "back to its PCID");
}

static void pcid_global(struct vm *vm)
{
	pcid_on(vm);
	cached(vm, 0, PT_G, 1, 1);
	survives_in(vm, 2, 0, "global, another PCID");
	guest_ok(vm, g_movcr3, (u64)vm->cr3 | 2, 0);
	survives(vm, 0, "global, MOV CR3");
	survives_in(vm, 1, 0, "global, its PCID");
}

static void pcid_movcr3(struct vm *vm)
{
	pcid_on(vm);
	cached(vm, 0, 0, 1, 2);
	cached(vm, 1, 0, 0, 0);
	guest_ok(vm, g_movcr3, (u64)vm->cr3 | 1, 0);
	expect(vm->vmcb->cr3 == ((u64)vm->cr3 | 1), "CR3 is %lx", vm->vmcb->cr3);
	gone_for_guest(vm, 0, "MOV CR3 of this PCID");
	survives_in(vm, 2, 0, "MOV CR3 of another PCID");
	survives_in(vm, 0, 1, "MOV CR3 of another PCID, PCID 0");
	expect(vm->vmcb->cr3 == (u64)vm->cr3, "bit 63 of CR3 was written: %lx", vm->vmcb->cr3);
}

static void pcid_invlpg(struct vm *vm)
{
	pcid_on(vm);
	cached(vm, 0, 0, 1, 2);
	cached(vm, 1, 0, 1, 2);
	cached(vm, 2, PT_G, 1, 2);
	to(vm, 1);
	guest_ok(vm, g_invlpg, gva(vm, 0), 0);
	gone_for_guest(vm, 0, "INVLPG with this PCID");
	survives(vm, 1, "INVLPG of another page");
	survives(vm, 2, "INVLPG of another page, global");
	survives_in(vm, 2, 0, "INVLPG with another PCID");
	guest_ok(vm, g_invlpg, gva(vm, 2), 0);
	gone_in(vm, 1, 2, "INVLPG with another PCID, global");
}

static void pcid_invlpga(struct vm *vm)
{
	pcid_on(vm);
	cached(vm, 0, 0, 1, 2);
	cached(vm, 1, 0, 1, 2);
	cached(vm, 2, PT_G, 1, 2);
	invlpga(gva(vm, 0), 1);
	invlpga(gva(vm, 2), 1);
	gone_in(vm, 1, 0, "INVLPGA");
	gone_in(vm, 2, 0, "INVLPGA, another PCID");
	gone_in(vm, 2, 2, "INVLPGA, global");
	survives_in(vm, 1, 1, "INVLPGA of another page");
}

/* Pages: 0 and 1 with PCIDs 1 and 2, 2 is global; the guest has another PCID. */
static struct vm *for_invpcid(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	pcid_on(vm);
	pcid_on(b);
	cached(b, 0, 0, 1, 2);
	cached(vm, 0, 0, 1, 2);
	cached(vm, 1, 0, 1, 2);
	cached(vm, 2, PT_G, 1, 2);
	to(vm, 3);
	return b;
}

static void invpcid_address(struct vm *vm)
{
	struct vm *b = for_invpcid(vm);

	invpcid(vm, ADDRESS, 1, gva(vm, 0) + 123);
	invpcid(vm, ADDRESS, 1, gva(vm, 2));
	gone_in(vm, 1, 0, "INVPCID 0");
	survives_in(vm, 1, 1, "INVPCID 0, another page");
	survives_in(vm, 1, 2, "INVPCID 0, global");
	survives_in(vm, 2, 0, "INVPCID 0, another PCID");
	survives_in(b, 1, 0, "INVPCID 0, another ASID");
}

static void invpcid_context(struct vm *vm)
{
	struct vm *b = for_invpcid(vm);

	invpcid(vm, CONTEXT, 1, 0);
	gone_in(vm, 1, 0, "INVPCID 1");
	gone_in(vm, 1, 1, "INVPCID 1");
	survives_in(vm, 1, 2, "INVPCID 1, global");
	survives_in(vm, 2, 0, "INVPCID 1, another PCID");
	survives_in(b, 1, 0, "INVPCID 1, another ASID");
}

static void invpcid_all_and_global(struct vm *vm)
{
	struct vm *b = for_invpcid(vm);

	invpcid(vm, ALL_AND_GLOBAL, 0, 0);
	gone_in(vm, 1, 0, "INVPCID 2");
	gone_in(vm, 2, 1, "INVPCID 2");
	gone_in(vm, 2, 2, "INVPCID 2, global");
	survives_in(b, 1, 0, "INVPCID 2, another ASID");
}

static void invpcid_all(struct vm *vm)
{
	struct vm *b = for_invpcid(vm);

	invpcid(vm, ALL, 0, 0);
	gone_in(vm, 1, 0, "INVPCID 3");
	gone_in(vm, 2, 1, "INVPCID 3");
	survives_in(vm, 2, 2, "INVPCID 3, global");
	survives_in(b, 1, 0, "INVPCID 3, another ASID");
}

static void invpcid_faults(struct vm *vm)
{
	u64 type;

	/* Without CR4.PCIDE, there is only PCID 0. */
	descriptor.va = 0;
	for (type = ADDRESS; type <= ALL; type++) {
		descriptor.pcid = 0;
		guest_ok(vm, g_invpcid, type, (u64)&descriptor);
		descriptor.pcid = 1;
		ends(vm, g_invpcid, type, (u64)&descriptor, type <= CONTEXT ? EXIT_EXCP(GP) : EXIT_VMMCALL);
	}
	pcid_on(vm);
	for (type = ADDRESS; type <= ALL; type++) {
		descriptor.pcid = 0xfff;
		guest_ok(vm, g_invpcid, type, (u64)&descriptor);
		descriptor.pcid = 0x1000;
		ends(vm, g_invpcid, type, (u64)&descriptor, EXIT_EXCP(GP));
		descriptor.pcid = 1ul << 63;
		ends(vm, g_invpcid, type, (u64)&descriptor, EXIT_EXCP(GP));
	}
	descriptor.pcid = 1;
	ends(vm, g_invpcid, 4, (u64)&descriptor, EXIT_EXCP(GP));
	ends(vm, g_invpcid, 1ul << 32, (u64)&descriptor, EXIT_EXCP(GP));
	descriptor.va = 1ul << 47;
	ends(vm, g_invpcid, ADDRESS, (u64)&descriptor, EXIT_EXCP(GP));
	guest_ok(vm, g_invpcid, CONTEXT, (u64)&descriptor);
	ends(vm, g_invpcid, ADDRESS, gva(vm, 0), EXIT_PF);
}

static void invpcid_intercepted(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;

	pcid_on(vm);
	cached(vm, 0, 0, 1, 2);
	c->intercept3 |= INTERCEPT_INVPCID;
	descriptor.pcid = 1;
	ends(vm, g_invpcid, CONTEXT, (u64)&descriptor, EXIT_INVPCID);
	expect(c->exit_info1 == (u64)&descriptor && c->exit_info2 == CONTEXT, "EXITINFO1 %lx, EXITINFO2 %lx",
	       c->exit_info1, c->exit_info2);
	expect(c->rip == (u64)g_invpcid && c->nrip == c->rip + 5, "RIP %lx, nRIP %lx", c->rip, c->nrip);
	/* The exception has priority, the contents of the descriptor do not. */
	descriptor.pcid = ~0ul;
	ends(vm, g_invpcid, CONTEXT, (u64)&descriptor, EXIT_INVPCID);
	survives_in(vm, 1, 0, "INVPCID intercepted");
	c->intercept3 = 0;
	invpcid(vm, CONTEXT, 1, 0);
	gone_in(vm, 1, 0, "INVPCID not intercepted");
}

static void pcide_faults(struct vm *vm)
{
	u64 cr3 = (u64)vm->cr3;

	ends(vm, g_movcr3, cr3 | KEEP_PCID, 0, EXIT_EXCP(GP));
	guest_ok(vm, g_movcr3, cr3 | 1, 0);
	ends(vm, g_write_cr4, CR4_64 | CR4_PCIDE, 0, EXIT_EXCP(GP));
	expect(vm->vmcb->cr4 == CR4_64, "CR4 is %lx after #GP", vm->vmcb->cr4);
	guest_ok(vm, g_movcr3, cr3, 0);
	pcid_on(vm);
	/* It may stay set with any PCID. */
	to(vm, 5);
	guest_ok(vm, g_write_cr4, CR4_64 | CR4_PCIDE, 0);
	ends(vm, g_write_cr0, CR0_64 & ~CR0_PG, 0, EXIT_EXCP(GP));
	expect(vm->vmcb->cr0 == CR0_64, "CR0 is %lx after #GP", vm->vmcb->cr0);
	to_32bit(vm, CR0_ET | CR0_PE, 0);
	ends(vm, g32_write_cr4, CR4_PCIDE, 0, EXIT_EXCP(GP));
}

/* What all PCIDs have goes when CR4.PCIDE is cleared, but not when it is set. */
static void pcide_cleared(struct vm *vm)
{
	pcid_on(vm);
	cached(vm, 0, 0, 1, 2);
	cached(vm, 1, 0, 0, 0);
	cached(vm, 2, PT_G, 0, 0);
	guest_ok(vm, g_write_cr4, CR4_64, 0);
	gone_for_guest(vm, 1, "CR4.PCIDE cleared");
	gone_for_guest(vm, 2, "CR4.PCIDE cleared, global");
	pcid_on(vm);
	gone_in(vm, 1, 0, "CR4.PCIDE cleared, PCID 1");
	gone_in(vm, 2, 0, "CR4.PCIDE cleared, PCID 2");
}

static void pcide_set(struct vm *vm)
{
	stale(vm, 0);
	stale_global(vm, 1);
	pcid_on(vm);
	survives(vm, 0, "CR4.PCIDE set: what was cached before is that of PCID 0");
	survives(vm, 1, "CR4.PCIDE set, global");
	gone_in(vm, 1, 0, "CR4.PCIDE set, PCID 1");
	survives_in(vm, 1, 1, "CR4.PCIDE set, global, PCID 1");
}

static void pcid_cr4_pge(struct vm *vm)
{
	pcid_on(vm);
	cached(vm, 0, 0, 1, 2);
	cached(vm, 2, PT_G, 1, 2);
	to(vm, 3);
	guest_ok(vm, g_flip_cr4, CR4_PGE, 0);
	gone_in(vm, 1, 0, "CR4.PGE, PCID 1");
	gone_in(vm, 2, 0, "CR4.PGE, PCID 2");
	gone_in(vm, 2, 2, "CR4.PGE, global");
}

/* The VMCB brings a PCID, and no flush. */
static void pcid_vmrun(struct vm *vm)
{
	pcid_on(vm);
	cached(vm, 0, 0, 1, 1);
	vm->vmcb->cr3 = (u64)vm->cr3 | 2;
	gone_for_guest(vm, 0, "VMRUN with another PCID");
	vm->vmcb->cr3 = (u64)vm->cr3 | 1;
	survives(vm, 0, "VMRUN with its PCID");
	/* Without CR4.PCIDE, the PCID is 0, whatever CR3 has in these bits. */
	vm->vmcb->cr4 = CR4_64;
	gone_for_guest(vm, 0, "VMRUN without PCIDs");
	vm->vmcb->cr4 = CR4_64 | CR4_PCIDE;
	survives(vm, 0, "VMRUN with its PCID again");
}

static void pcid_tlb_control(struct vm *vm)
{
	pcid_on(vm);
	cached(vm, 0, 0, 1, 2);
	cached(vm, 2, PT_G, 1, 2);
	if (config.by_asid) {
		flush(vm, FLUSH_NONGLOBAL);
		to(vm, 1);
		gone(vm, 0, "TLB_CONTROL 7, PCID 1");
		to(vm, 2);
		gone(vm, 0, "TLB_CONTROL 7, PCID 2");
		if (vm->mode != NESTED_TABLE)
			survives(vm, 2, "TLB_CONTROL 7, global");
	}
	cached(vm, 1, 0, 1, 2);
	flush_guest(vm);
	to(vm, 1);
	gone(vm, 1, "flush, PCID 1");
	to(vm, 2);
	gone(vm, 1, "flush, PCID 2");
	gone(vm, 2, "flush, global");
}

/* The entry above a table is cached for a PCID as well: page 5 was never accessed. */
static void pcid_structure_cache(struct vm *vm)
{
	u64 *pde = entry(vm->cr3, vm->va, 2), *table = alloc(PAGE_SIZE), v;

	if (vm->mode == NESTED_TABLE)
		return skip("it is about the guest's tables");
	pcid_on(vm);
	map_old(vm, 5);
	cached(vm, 0, 0, 1, 2);
	/* Another table, in which page 5 has the data of page 0 */
	memcpy(table, (void *)(*pde & PT_ADDR), PAGE_SIZE);
	table[5] = table[0];
	*pde = (*pde & ~PT_ADDR) | (u64)table;
	to(vm, 3);
	v = load(vm, 5);
	expect(v == new_data(vm, 0), "PCID 3: read %lx, expected what the new table has", v);
	to(vm, 1);
	v = load(vm, 5);
	expect(v == old_data(vm, 5), "PCID 1: read %lx, expected what the old table has", v);
	invpcid(vm, CONTEXT, 1, 0);
	v = load(vm, 5);
	expect(v == new_data(vm, 0), "PCID 1 after INVPCID: read %lx, expected what the new table has", v);
	to(vm, 2);
	v = load(vm, 5);
	expect(v == old_data(vm, 5), "PCID 2: read %lx, expected what the old table has", v);
	invpcid(vm, ADDRESS, 2, gva(vm, 5));
	v = load(vm, 5);
	expect(v == new_data(vm, 0), "PCID 2 after INVPCID: read %lx, expected what the new table has", v);
}

/* A hypervisor with PCIDs of its own: VMRUN and #VMEXIT bring it back to its PCID. */
static void pcid_host(struct vm *vm)
{
	u64 cr3 = read_cr(3), cr4 = read_cr(4), at = (u64)alloc(SIZE_2M);
	u64 *pde = entry((u64 *)cr3, at, 2), old = *pde;
	u64 *other = alloc(SIZE_2M);

	write_cr(4, cr4 | CR4_PCIDE);
	write_cr(3, cr3 | 7);
	guest_ok(vm, g_nop, 0, 0);
	expect(read_cr(3) == (cr3 | 7), "CR3 is %lx after #VMEXIT", read_cr(3));
	expect(read_cr(4) == (cr4 | CR4_PCIDE), "CR4 is %lx after #VMEXIT", read_cr(4));
	*(volatile u64 *)at = 1;
	*other = 2;
	*pde = (old & ~PT_ADDR) | (u64)other;
	descriptor.pcid = 7;
	descriptor.va = at;
	asm volatile("invpcid %0, %1" : : "m"(descriptor), "r"((u64)ADDRESS) : "memory");
	expect(*(volatile u64 *)at == 2, "the host reads %lx after INVPCID", *(volatile u64 *)at);
	*pde = old;
	write_cr(3, cr3 | KEEP_PCID);
	write_cr(4, cr4);
	expect(*(volatile u64 *)at == 1, "the host reads %lx after CR4.PCIDE was cleared", *(volatile u64 *)at);
	expect(read_cr(3) == cr3, "CR3 is %lx", read_cr(3));
}

/* The host needs CR4.PCIDE to name a PCID. */
static void invlpgb_with_pcid(u64 rax, u64 edx_ecx)
{
	u64 cr4 = read_cr(4);

	write_cr(4, cr4 | CR4_PCIDE);
	invlpgb(rax | VALID_PCID | VALID_ASID | INCLUDE_NESTED, edx_ecx);
	write_cr(4, cr4);
}

static void gone_everywhere(struct vm *vm, u64 pcid, u64 n, const char *what)
{
	to(vm, pcid);
	gone(vm, n, what);
}

static void invlpgb_pcid(struct vm *vm)
{
	struct vm *b = for_invpcid(vm);

	invlpgb_with_pcid(0, ASID(1) | PCID(1));
	gone_everywhere(vm, 1, 0, "INVLPGB of a PCID");
	gone_everywhere(vm, 1, 1, "INVLPGB of a PCID");
	survives_in(vm, 1, 2, "INVLPGB of a PCID, global");
	survives_in(vm, 2, 0, "INVLPGB of another PCID");
	survives_in(b, 1, 0, "INVLPGB of a PCID, another ASID");
}

static void invlpgb_pcid_address(struct vm *vm)
{
	struct vm *b = for_invpcid(vm);

	invlpgb_with_pcid(gva(vm, 0) | VALID_VA, ASID(1) | PCID(1));
	invlpgb_with_pcid(gva(vm, 2) | VALID_VA, ASID(1) | PCID(1));
	gone_everywhere(vm, 1, 0, "INVLPGB of a page of a PCID");
	survives_in(vm, 1, 1, "INVLPGB of another page");
	survives_in(vm, 1, 2, "INVLPGB of a page of a PCID, global");
	survives_in(vm, 2, 0, "INVLPGB of a page of another PCID");
	survives_in(b, 1, 0, "INVLPGB of a page of a PCID, another ASID");
	invlpgb_with_pcid(gva(vm, 0) | VALID_VA | INCLUDE_GLOBAL, ASID(1) | PCID(2) | 2);
	gone_everywhere(vm, 2, 0, "INVLPGB of a range of a PCID");
	gone_everywhere(vm, 2, 1, "INVLPGB of a range of a PCID");
	gone_everywhere(vm, 2, 2, "INVLPGB of a range of a PCID with global");
	survives_in(vm, 1, 1, "INVLPGB of a range of another PCID");
}

static void invlpgb_pcid_global(struct vm *vm)
{
	struct vm *b = for_invpcid(vm);

	invlpgb_with_pcid(INCLUDE_GLOBAL, ASID(1) | PCID(1));
	gone_everywhere(vm, 1, 0, "INVLPGB of a PCID with global");
	gone_everywhere(vm, 1, 2, "INVLPGB of a PCID with global");
	survives_in(vm, 2, 0, "INVLPGB of another PCID with global");
	survives_in(b, 1, 0, "INVLPGB of a PCID with global, another ASID");
}

static void invlpgb_all_pcids(struct vm *vm)
{
	struct vm *b = for_invpcid(vm);

	/* The PCID is not valid, so that it does not count. */
	invlpgb(gva(vm, 0) | VALID_VA | VALID_ASID | INCLUDE_NESTED, ASID(1) | PCID(7));
	gone_everywhere(vm, 1, 0, "INVLPGB of a page");
	gone_everywhere(vm, 2, 0, "INVLPGB of a page");
	survives_in(vm, 1, 1, "INVLPGB of another page");
	invlpgb(VALID_ASID | INCLUDE_NESTED, ASID(1) | PCID(7));
	gone_everywhere(vm, 1, 1, "INVLPGB of an ASID");
	gone_everywhere(vm, 2, 1, "INVLPGB of an ASID");
	survives_in(vm, 2, 2, "INVLPGB of an ASID, global");
	survives_in(b, 1, 0, "INVLPGB of another ASID");
}

static void invlpgb_pcid_guest(struct vm *vm)
{
	struct vm *b = for_invpcid(vm);

	vm->vmcb->np_enable |= ENABLE_INVLPGB;
	guest_ok(vm, g_invlpgb, VALID_PCID, PCID(1) | ASID(2));
	gone_in(vm, 1, 0, "the guest's INVLPGB of a PCID");
	survives_in(vm, 1, 2, "the guest's INVLPGB of a PCID, global");
	survives_in(vm, 2, 0, "the guest's INVLPGB of another PCID");
	survives_in(b, 1, 0, "INVLPGB of another guest");
	guest_ok(vm, g_invlpgb, gva(vm, 0) | VALID_VA | VALID_PCID, PCID(2));
	gone_in(vm, 2, 0, "the guest's INVLPGB of a page of a PCID");
	survives_in(vm, 2, 1, "the guest's INVLPGB of another page");
}

static void invlpgb_pcid_faults(struct vm *vm)
{
	u64 cr4 = read_cr(4);

	expect(invlpgb_fault(VALID_PCID, PCID(1)) == GP, "PCID 1 without CR4.PCIDE raised no #GP");
	expect(!invlpgb_fault(VALID_PCID, PCID(0)), "PCID 0 without CR4.PCIDE raised an exception");
	write_cr(4, cr4 | CR4_PCIDE);
	expect(!invlpgb_fault(VALID_PCID, PCID(0xfff)), "PCID 0xfff raised an exception");
	write_cr(4, cr4);
	/* It is the guest's CR4 that counts. */
	vm->vmcb->np_enable |= ENABLE_INVLPGB;
	ends(vm, g_invlpgb, VALID_PCID, PCID(1), EXIT_EXCP(GP));
	guest_ok(vm, g_invlpgb, VALID_PCID, PCID(0));
	pcid_on(vm);
	guest_ok(vm, g_invlpgb, VALID_PCID, PCID(0xfff));
}

void pcid_tests(void)
{
	static const struct test tests[] = {
		{ "pcid-cpuid", pcid_cpuid, 0 },
		{ "pcids-do-not-mix", pcids_do_not_mix, ALL_MODES },
		{ "pcid-global", pcid_global, ALL_MODES },
		{ "pcid-movcr3", pcid_movcr3, ALL_MODES },
		{ "pcid-invlpg", pcid_invlpg, ALL_MODES },
		{ "pcid-invlpga", pcid_invlpga, ALL_MODES },
		{ "invpcid-address", invpcid_address, ALL_MODES },
		{ "invpcid-context", invpcid_context, ALL_MODES },
		{ "invpcid-all-and-global", invpcid_all_and_global, ALL_MODES },
		{ "invpcid-all", invpcid_all, ALL_MODES },
		{ "invpcid-faults", invpcid_faults, ALL_MODES },
		{ "invpcid-intercepted", invpcid_intercepted, ALL_MODES },
		{ "pcide-faults", pcide_faults, ALL_MODES },
		{ "pcide-cleared", pcide_cleared, ALL_MODES },
		{ "pcide-set", pcide_set, ALL_MODES },
		{ "pcid-cr4-pge", pcid_cr4_pge, ALL_MODES },
		{ "pcid-vmrun", pcid_vmrun, ALL_MODES },
		{ "pcid-tlb-control", pcid_tlb_control, ALL_MODES },
		{ "pcid-structure-cache", pcid_structure_cache, NPT_OFF | GUEST_TABLE },
		{ "pcid-host", pcid_host, NPT_OFF },
	};

	static const struct test with_invlpgb[] = {
		{ "invlpgb-pcid", invlpgb_pcid, ALL_MODES },
		{ "invlpgb-pcid-address", invlpgb_pcid_address, ALL_MODES },
		{ "invlpgb-pcid-global", invlpgb_pcid_global, ALL_MODES },
		{ "invlpgb-all-pcids", invlpgb_all_pcids, ALL_MODES },
		{ "invlpgb-pcid-guest", invlpgb_pcid_guest, ALL_MODES },
		{ "invlpgb-pcid-faults", invlpgb_pcid_faults, ALL_MODES },
	};

	run_tests("pcid", tests, ARRAY_SIZE(tests));
	run_tests("invlpgb-pcid", with_invlpgb, ARRAY_SIZE(with_invlpgb));
}
