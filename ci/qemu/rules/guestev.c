// SPDX-License-Identifier: GPL-2.0-only
/* Events in which a guest flushes its TLB, also if the hypervisor intercepts them. */
#include "rules.h"

static void invlpg_page(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale(vm, 1);
	stale_global(vm, 2);
	stale(b, 0);
	survives(vm, 0, "before");
	survives(vm, 2, "before, global");
	guest_ok(vm, g_invlpg, gva(vm, 0) + 123, 0);
	gone_for_guest(vm, 0, "INVLPG");
	survives(vm, 1, "INVLPG of the page before");
	survives(vm, 2, "INVLPG of another page, global");
	guest_ok(vm, g_invlpg, gva(vm, 2), 0);
	gone_for_guest(vm, 2, "INVLPG, global");
	survives(b, 0, "INVLPG under another ASID");
	guest_ok(b, g_invlpg, gva(b, 0), 0);
	gone_for_guest(b, 0, "INVLPG under its own ASID");
}

/*
 * Without a VMRUN in between: QEMU's own TLB must not keep a translation that the model has dropped,
 * and the model must not lose one that it keeps.
 */
static void invlpg_between(struct vm *vm)
{
	u64 v;

	stale(vm, 0);
	map_old(vm, 1);
	v = guest(vm, g_load_invlpg_load, gva(vm, 0), gva(vm, 1));
	expect(v == (config.model ? old_data(vm, 0) : new_data(vm, 0)),
	       "INVLPG of another page: read %lx", v);
	v = guest(vm, g_load_invlpg_load, gva(vm, 0), gva(vm, 0));
	expect(v == (config.model && vm->mode == NESTED_TABLE ? old_data(vm, 0) : new_data(vm, 0)),
	       "INVLPG of the page: read %lx", v);
}

/* A 2 MB page of the guest, from page 512 on, for which the nested tables have 4 KB pages */
#define PIECES	4

static void map_splintered(struct vm *vm, u64 pa, bool new)
{
	u64 n;

	*entry(vm->cr3, vm->va + SIZE_2M, 2) = pa | PT_P | PT_RW | PT_PS;
	for (n = 0; n < PIECES; n++)
		*entry(vm->ncr3, pa + n * PAGE_SIZE, 1) =
			(u64)data_page(new ? new_data(vm, 512 + n) : old_data(vm, 512 + n)) |
			PT_P | PT_RW | PT_US;
}

static void make_splintered(struct vm *vm)
{
	u64 n, v;

	map_splintered(vm, vm->pa + SIZE_2M, false);
	for (n = 0; n < PIECES - 1; n++) {
		v = load(vm, 512 + n);
		expect(v == old_data(vm, 512 + n), "piece %ld: read %lx, expected %lx", n, v,
		       old_data(vm, 512 + n));
	}
	map_splintered(vm, vm->pa + 2 * SIZE_2M, true);
	for (n = 0; n < PIECES - 1; n++)
		survives(vm, 512 + n, "before, piece of a large page");
}

static void invlpg_splintered(struct vm *vm)
{
	u64 n;

	stale(vm, 0);
	make_splintered(vm);
	/* The address is in a piece that the guest never accessed. */
	guest_ok(vm, g_invlpg, gva(vm, 512 + PIECES - 1), 0);
	for (n = 0; n < PIECES; n++)
		gone(vm, 512 + n, "INVLPG, piece of a large page");
	survives(vm, 0, "INVLPG of a large page, another page");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

/* If a small page has become part of a large one, INVLPG drops the entries of both. */
static void invlpg_overlap(struct vm *vm)
{
	u64 large = (u64)alloc(SIZE_2M), *pde;

	stale(vm, 0);
	survives(vm, 0, "before");
	*(u64 *)large = 0xa;
	*(u64 *)(large + PAGE_SIZE) = 0xb;
	pde = entry(vm->cr3, vm->va, 2);
	*pde = large | PT_P | PT_RW | PT_PS;
	/* Structure caches would still lead to the small page's table. */
	guest_ok(vm, g_invlpg, gva(vm, 5), 0);
	expect(load(vm, 1) == 0xb, "page 1 of the large page");
	large = (u64)alloc(SIZE_2M);
	*(u64 *)large = 0xc;
	*(u64 *)(large + PAGE_SIZE) = 0xd;
	*pde = large | PT_P | PT_RW | PT_PS;
	expect(load(vm, 1) == (config.model ? 0xb : 0xd), "large page, not flushed");
	guest_ok(vm, g_invlpg, gva(vm, 0), 0);
	expect(load(vm, 0) == 0xc, "INVLPG: the page that was small and large");
	expect(load(vm, 1) == 0xd, "INVLPG: another part of the large page");
}

/* The same for a fault: no entry may be left after the walk that confirms it. */
static void fault_overlap(struct vm *vm)
{
	u64 large = (u64)alloc(SIZE_2M), other = (u64)alloc(SIZE_2M), *pde;

	map_old(vm, 0);
	*pte(vm, 0) &= ~PT_RW;
	load(vm, 0);
	*(u64 *)large = 0xa;
	*(u64 *)(large + PAGE_SIZE) = 0xb;
	*(u64 *)other = 0xc;
	*(u64 *)(other + PAGE_SIZE) = 0xd;
	pde = entry(vm->cr3, vm->va, 2);
	*pde = large | PT_P | PT_RW | PT_PS;
	guest_ok(vm, g_invlpg, gva(vm, 5), 0);
	expect(load(vm, 1) == 0xb, "page 1 of the large page");
	expect(load(vm, 0) == (config.model ? old_data(vm, 0) : 0xa), "page 0, which was small");
	*pde = other | PT_P | PT_RW | PT_PS;
	store(vm, 0, 0xe, EXIT_VMMCALL);
	expect(*(u64 *)other == 0xe,
	       "the store went to what was cached: %lx there, %lx in the old large page",
	       *(u64 *)other, *(u64 *)large);
	expect(load(vm, 0) == 0xe, "what was stored is not there");
	flush_guest(vm);
	expect(load(vm, 1) == 0xd, "flush");
}

static void intercepted(struct vm *vm, guest_code *code, u64 rdi, u64 rsi, u64 exit_code)
{
	guest(vm, code, rdi, rsi);
	expect(vm->vmcb->exit_code == exit_code, "exit code %lx, expected %lx", vm->vmcb->exit_code,
	       exit_code);
}

static void invlpg_intercepted(struct vm *vm)
{
	stale(vm, 0);
	vm->vmcb->intercept1 |= INTERCEPT_INVLPG;
	intercepted(vm, g_invlpg, gva(vm, 0), 0, EXIT_INVLPG);
	survives(vm, 0, "INVLPG intercepted");
	vm->vmcb->intercept1 &= ~INTERCEPT_INVLPG;
	guest_ok(vm, g_invlpg, gva(vm, 0), 0);
	gone_for_guest(vm, 0, "INVLPG not intercepted");
}

static void invlpga_asid(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale(vm, 1);
	stale_global(vm, 2);
	stale(b, 0);
	invlpga(gva(vm, 0), 1);
	gone_for_guest(vm, 0, "INVLPGA");
	survives(vm, 1, "INVLPGA of another page");
	invlpga(gva(vm, 2), 1);
	gone_for_guest(vm, 2, "INVLPGA, global");
	survives(b, 0, "INVLPGA with another ASID");
	invlpga(gva(b, 0), 2);
	gone_for_guest(b, 0, "INVLPGA with its own ASID");
}

static void invlpga_other_asid(struct vm *vm)
{
	stale(vm, 0);
	invlpga(gva(vm, 0), 2);
	invlpga(gva(vm, 0), 7);
	/* There is no such ASID. */
	invlpga(gva(vm, 0), ~0u);
	invlpga(gva(vm, 0), 0x10001);
	survives(vm, 0, "INVLPGA with other ASIDs");
	invlpga(gva(vm, 0), 1);
	gone_for_guest(vm, 0, "INVLPGA");
}

static void invlpga_asid_0(struct vm *vm)
{
	stale(vm, 0);
	invlpga(gva(vm, 0), 0);
	survives(vm, 0, "INVLPGA with ASID 0");
	invlpga(gva(vm, 0), 1);
	gone_for_guest(vm, 0, "INVLPGA");
}

/* The address is virtual: translations that are cached by guest-physical address stay. */
static void invlpga_guest_physical(struct vm *vm)
{
	stale(vm, 0);
	invlpga(gva(vm, 0), 1);
	invlpga(vm->pa, 1);
	survives(vm, 0, "INVLPGA of the virtual and the guest-physical address");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

static void invlpga_splintered(struct vm *vm)
{
	u64 n;

	make_splintered(vm);
	invlpga(gva(vm, 512 + PIECES - 1), 1);
	for (n = 0; n < PIECES; n++)
		gone(vm, 512 + n, "INVLPGA, piece of a large page");
}

static void invlpga_intercepted(struct vm *vm)
{
	stale(vm, 0);
	vm->vmcb->intercept1 |= INTERCEPT_INVLPGA;
	intercepted(vm, g_invlpga, gva(vm, 0), 1, EXIT_INVLPGA);
	survives(vm, 0, "the guest's INVLPGA, intercepted");
	invlpga(gva(vm, 0), 1);
	gone_for_guest(vm, 0, "INVLPGA");
}

static void movcr3(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale_global(vm, 1);
	stale(b, 0);
	survives(vm, 0, "before");
	guest_ok(vm, g_reload_cr3, 0, 0);
	gone_for_guest(vm, 0, "MOV CR3");
	survives(vm, 1, "MOV CR3, global");
	survives(b, 0, "MOV CR3 under another ASID");
	guest_ok(b, g_movcr3, b->vmcb->cr3, 0);
	gone_for_guest(b, 0, "MOV CR3 under its own ASID");
	guest_ok(vm, g_invlpg, gva(vm, 1), 0);
	gone_for_guest(vm, 1, "INVLPG, global");
}

static void movcr3_other_root(struct vm *vm)
{
	u64 *root = alloc(PAGE_SIZE);

	memcpy(root, vm->cr3, PAGE_SIZE);
	stale(vm, 0);
	survives(vm, 0, "before");
	guest_ok(vm, g_movcr3, (u64)root, 0);
	expect(vm->vmcb->cr3 == (u64)root, "CR3 after MOV CR3");
	memcpy(root, vm->cr3, PAGE_SIZE);
	gone_for_guest(vm, 0, "MOV CR3");
}

static void movcr3_intercepted(struct vm *vm)
{
	stale(vm, 0);
	vm->vmcb->intercept_cr_write |= 1 << 3;
	intercepted(vm, g_reload_cr3, 0, 0, EXIT_CR_WRITE(3));
	survives(vm, 0, "MOV CR3 intercepted");
	vm->vmcb->intercept_cr_write = 0;
	guest_ok(vm, g_reload_cr3, 0, 0);
	gone_for_guest(vm, 0, "MOV CR3");
}

/* The global bit has no effect while CR4.PGE is clear. */
static void movcr3_without_pge(struct vm *vm)
{
	vm->vmcb->cr4 &= ~CR4_PGE;
	stale_global(vm, 0);
	survives(vm, 0, "before");
	guest_ok(vm, g_reload_cr3, 0, 0);
	gone_for_guest(vm, 0, "MOV CR3, marked global without CR4.PGE");
}

/* With paging off the page tables are not in use, but translations cached before may be used again later. */
static void movcr3_paging_off(struct vm *vm)
{
	stale(vm, 0);
	stale_global(vm, 1);
	to_32bit(vm, CR0_ET | CR0_PE, CR4_64);
	guest_ok(vm, g32_nop, 0, 0);
	to_64bit(vm);
	survives(vm, 0, "paging off for a while");
	to_32bit(vm, CR0_ET | CR0_PE, CR4_64);
	guest_ok(vm, g32_reload_cr3, 0, 0);
	to_64bit(vm);
	gone_for_guest(vm, 0, "MOV CR3 with paging off");
	survives(vm, 1, "MOV CR3 with paging off, global");
	flush_guest(vm);
	gone(vm, 1, "flush");
}

static void movcr3_pcid(struct vm *vm)
{
	u64 cr3 = (u64)vm->cr3;

	if (!(cpuid(1, 0).c & (1 << 17)))
		return skip("x-svm-pcid is off");
	guest_ok(vm, g_write_cr4, CR4_64 | CR4_PCIDE, 0);
	stale(vm, 0);
	guest_ok(vm, g_movcr3, cr3 | 1, 0);
	gone_for_guest(vm, 0, "another PCID");
	guest_ok(vm, g_movcr3, cr3 | 1ul << 63, 0);
	survives(vm, 0, "back to its PCID, keeping");
	guest_ok(vm, g_movcr3, cr3, 0);
	gone_for_guest(vm, 0, "MOV CR3");
	guest_ok(vm, g_write_cr4, CR4_64, 0);
}

static void cr4_pcide(struct vm *vm)
{
	if (!(cpuid(1, 0).c & (1 << 17)))
		return skip("x-svm-pcid is off");
	stale_global(vm, 0);
	guest_ok(vm, g_write_cr4, CR4_64 | CR4_PCIDE, 0);
	guest_ok(vm, g_write_cr4, CR4_64, 0);
	gone_for_guest(vm, 0, "CR4.PCIDE cleared");
}

/* CODE with VALUE flushes the guest's whole ASID, including global pages */
static void flushes_globals(struct vm *vm, guest_code *code, u64 value, const char *what)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale_global(vm, 1);
	stale(b, 0);
	survives(vm, 0, "before");
	survives(vm, 1, "before, global");
	guest_ok(vm, code, value, 0);
	gone_for_guest(vm, 0, what);
	gone_for_guest(vm, 1, what);
	survives(b, 0, "another ASID's change");
	flush_guest(b);
	gone(b, 0, "flush");
}

static void cr4_pge_clear(struct vm *vm)
{
	flushes_globals(vm, g_write_cr4, CR4_64 & ~CR4_PGE, "CR4.PGE cleared");
}

static void cr4_pge_set(struct vm *vm)
{
	vm->vmcb->cr4 &= ~CR4_PGE;
	flushes_globals(vm, g_write_cr4, CR4_64, "CR4.PGE set");
}

static void cr4_pse_set(struct vm *vm)
{
	flushes_globals(vm, g_write_cr4, CR4_64 | CR4_PSE, "CR4.PSE set");
}

static void cr4_pse_clear(struct vm *vm)
{
	vm->vmcb->cr4 |= CR4_PSE;
	flushes_globals(vm, g_write_cr4, CR4_64, "CR4.PSE cleared");
}

static void cr4_same_value(struct vm *vm)
{
	stale(vm, 0);
	guest_ok(vm, g_write_cr4, CR4_64, 0);
	survives(vm, 0, "CR4 written with what it was");
	guest_ok(vm, g_write_cr4, CR4_64 | CR4_DE, 0);
	survives(vm, 0, "CR4.DE, which has nothing to do with paging");
	guest_ok(vm, g_flip_cr4, CR4_PGE, 0);
	gone_for_guest(vm, 0, "CR4.PGE there and back");
}

/*
 * Bits that cannot be changed in long mode: the hypervisor puts the guest into 32-bit mode without
 * paging, which flushes nothing, the guest changes the bit there, and the hypervisor restores it.
 */
static void in_32bit(struct vm *vm, guest_code *code, u64 bit, const char *what)
{
	stale(vm, 0);
	stale_global(vm, 1);
	to_32bit(vm, CR0_ET | CR0_PE, CR4_PGE);
	guest_ok(vm, g32_nop, 0, 0);
	to_64bit(vm);
	survives(vm, 0, "another mode for a while");
	survives(vm, 1, "another mode for a while, global");
	to_32bit(vm, CR0_ET | CR0_PE, CR4_PGE);
	guest_ok(vm, code, bit, 0);
	to_64bit(vm);
	gone_for_guest(vm, 0, what);
	gone_for_guest(vm, 1, what);
}

static void cr4_pae(struct vm *vm)
{
	in_32bit(vm, g32_flip_cr4, CR4_PAE, "CR4.PAE there and back");
}

static void cr4_la57(struct vm *vm)
{
	if (!(cpuid(7, 0).c & (1 << 16)))
		return skip("the CPU model has no LA57");
	in_32bit(vm, g32_flip_cr4, CR4_LA57, "CR4.LA57 there and back");
}

/* Turn paging off in compatibility mode, which leaves long mode as well. */
static void cr0_pg(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(vm, 0);
	stale_global(vm, 1);
	stale(b, 0);
	vm->vmcb->cs.attrib = 0xc9b;
	guest_ok(vm, g32_nop, 0, 0);
	to_64bit(vm);
	survives(vm, 1, "compatibility mode");
	vm->vmcb->cs.attrib = 0xc9b;
	guest_ok(vm, g32_write_cr0, CR0_64 & ~CR0_PG, 0);
	expect(!(vm->vmcb->cr0 & CR0_PG), "paging is still on");
	to_64bit(vm);
	gone_for_guest(vm, 0, "CR0.PG cleared");
	gone_for_guest(vm, 1, "CR0.PG cleared, global");
	survives(b, 0, "CR0.PG cleared under another ASID");
	flush_guest(b);
	gone(b, 0, "flush");
}

static void cr0_pg_set(struct vm *vm)
{
	stale(vm, 0);
	stale_global(vm, 1);
	vm->vmcb->cs.attrib = 0xc9b;
	vm->vmcb->cr0 &= ~CR0_PG;
	vm->vmcb->efer &= ~EFER_LMA;
	guest_ok(vm, g32_nop, 0, 0);
	to_64bit(vm);
	survives(vm, 0, "without paging for a while");
	vm->vmcb->cs.attrib = 0xc9b;
	vm->vmcb->cr0 &= ~CR0_PG;
	vm->vmcb->efer &= ~EFER_LMA;
	guest_ok(vm, g32_write_cr0, CR0_64, 0);
	to_64bit(vm);
	gone_for_guest(vm, 0, "CR0.PG set");
	gone_for_guest(vm, 1, "CR0.PG set, global");
}

/* CR0.WP controls a right: a change takes effect at once, in both directions, even for cached translations. */
static void cr0_wp(struct vm *vm)
{
	map_old(vm, 0);
	*pte(vm, 0) = (*pte(vm, 0) & ~PT_RW) | PT_D;
	load(vm, 0);
	store(vm, 0, 1, EXIT_PF);
	load(vm, 0);
	guest_ok(vm, g_write_cr0, CR0_64 & ~CR0_WP, 0);
	store(vm, 0, 2, EXIT_VMMCALL);
	guest_ok(vm, g_write_cr0, CR0_64, 0);
	store(vm, 0, 3, EXIT_PF);
	expect(load(vm, 0) == 2, "the page was written in spite of CR0.WP");
}

/* A write with CR0.WP clear must not change the address of the translation. */
static void cr0_wp_keeps(struct vm *vm)
{
	stale(vm, 0);
	guest_ok(vm, g_flip_cr0, CR0_WP, 0);
	survives(vm, 0, "CR0.WP there and back");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

static void cr0_cd_nw(struct vm *vm)
{
	map_old(vm, 0);
	load(vm, 0);
	guest_ok(vm, g_flip_cr0, CR0_CD, 0);
	expect(load(vm, 0) == old_data(vm, 0), "CR0.CD there and back");
	guest_ok(vm, g_write_cr0, CR0_64 | CR0_CD | CR0_NW, 0);
	expect(load(vm, 0) == old_data(vm, 0), "CR0.CD and NW set");
	map_new(vm, 0);
	guest_ok(vm, g_invlpg, gva(vm, 0), 0);
	gone_for_guest(vm, 0, "INVLPG with CR0.CD and NW set");
}

/* SMEP, SMAP, PKRU and CPL are checked at each access. */
static void smep_rights(struct vm *vm)
{
	if (!(cpuid(7, 0).b & (1 << 7)))
		return skip("the CPU model has no SMEP");
	map_old(vm, 0);
	*pte(vm, 0) |= PT_US;
	*data_of(vm, 0) = 0xc3;		/* RET */
	guest_ok(vm, g_call, gva(vm, 0), 0);
	guest_ok(vm, g_write_cr4, CR4_64 | CR4_SMEP, 0);
	intercepted(vm, g_call, gva(vm, 0), 0, EXIT_PF);
	load(vm, 0);
	guest_ok(vm, g_write_cr4, CR4_64, 0);
	guest_ok(vm, g_call, gva(vm, 0), 0);
}

static void smap_rights(struct vm *vm)
{
	if (!(cpuid(7, 0).b & (1 << 20)))
		return skip("the CPU model has no SMAP");
	map_old(vm, 0);
	*pte(vm, 0) |= PT_US;
	expect(load(vm, 0) == old_data(vm, 0), "without SMAP");
	guest_ok(vm, g_write_cr4, CR4_64 | CR4_SMAP, 0);
	intercepted(vm, g_load, gva(vm, 0), 0, EXIT_PF);
	vm->rflags = RFLAGS_AC;
	expect(load(vm, 0) == old_data(vm, 0), "SMAP with AC");
	map_new(vm, 0);
	survives(vm, 0, "SMAP with AC");
	vm->rflags = 0;
	intercepted(vm, g_load, gva(vm, 0), 0, EXIT_PF);
	guest_ok(vm, g_write_cr4, CR4_64, 0);
	gone_for_guest(vm, 0, "the fault");
}

static void user_rights(struct vm *vm)
{
	*entry(vm->cr3, 0x200000, 2) |= PT_US;
	map_old(vm, 0);
	load(vm, 0);
	vm->vmcb->cpl = 3;
	vm->vmcb->cs.attrib |= 3 << 5;
	vm->vmcb->ss.attrib |= 3 << 5;
	intercepted(vm, g_load, gva(vm, 0), 0, EXIT_PF);
	vm->vmcb->cpl = 0;
	vm->vmcb->cs.attrib &= ~(3 << 5);
	vm->vmcb->ss.attrib &= ~(3 << 5);
	expect(load(vm, 0) == old_data(vm, 0), "supervisor again");
	map_new(vm, 0);
	survives(vm, 0, "supervisor again, changed");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

/* The manual's list of changes that flush has neither SMEP nor SMAP. */
static void cr4_smep_smap_keep(struct vm *vm)
{
	stale(vm, 0);
	guest_ok(vm, g_flip_cr4, CR4_SMEP, 0);
	survives(vm, 0, "CR4.SMEP there and back");
	guest_ok(vm, g_flip_cr4, CR4_SMAP, 0);
	survives(vm, 0, "CR4.SMAP there and back");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

static bool no_pku(void)
{
	if (cpuid(7, 0).c & (1 << 3))
		return false;
	skip("the CPU model has no protection keys");
	return true;
}

static void pkru_rights(struct vm *vm)
{
	if (no_pku())
		return;
	vm->vmcb->cr4 |= CR4_PKE;
	stale(vm, 0);
	map_old(vm, 1);
	*pte(vm, 1) |= PT_US | PT_KEY(1);
	guest_ok(vm, g_wrpkru, 0, 0);
	expect(load(vm, 1) == old_data(vm, 1), "key 1, PKRU 0");
	map_new(vm, 1);
	survives(vm, 1, "key 1, PKRU 0");
	guest_ok(vm, g_wrpkru, 1 << 4, 0);
	survives(vm, 1, "key 1, PKRU forbids key 2");
	guest_ok(vm, g_wrpkru, 1 << 2, 0);
	intercepted(vm, g_load, gva(vm, 1), 0, EXIT_PF);
	guest_ok(vm, g_wrpkru, 0, 0);
	gone_for_guest(vm, 1, "the fault");
	survives(vm, 0, "PKRU written");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

static void cr4_pke_set(struct vm *vm)
{
	if (no_pku())
		return;
	flushes_globals(vm, g_write_cr4, CR4_64 | CR4_PKE, "CR4.PKE set");
	map_old(vm, 4);
	*pte(vm, 4) |= PT_US | PT_KEY(1);
	guest_ok(vm, g_wrpkru, 1 << 2, 0);
	guest_ok(vm, g_write_cr4, CR4_64, 0);
	expect(load(vm, 4) == old_data(vm, 4), "key 1 without CR4.PKE");
	guest_ok(vm, g_write_cr4, CR4_64 | CR4_PKE, 0);
	intercepted(vm, g_load, gva(vm, 4), 0, EXIT_PF);
	guest_ok(vm, g_wrpkru, 0, 0);
}

/* The manual's list of changes that flush has only the setting of the bit. */
static void cr4_pke_clear_keeps(struct vm *vm)
{
	if (no_pku())
		return;
	vm->vmcb->cr4 |= CR4_PKE;
	stale(vm, 0);
	guest_ok(vm, g_write_cr4, CR4_64, 0);
	survives(vm, 0, "CR4.PKE cleared");
	guest_ok(vm, g_write_cr4, CR4_64 | CR4_PKE, 0);
	gone_for_guest(vm, 0, "CR4.PKE set");
}

/* NX is reserved while EFER.NXE is clear: no translation with it may be used. */
static void efer_nxe(struct vm *vm)
{
	stale(vm, 0);
	survives(vm, 0, "before");
	guest_ok(vm, g_wrmsr, MSR_EFER, EFER_64 & ~EFER_NXE);
	gone_for_guest(vm, 0, "EFER.NXE cleared");
	map_old(vm, 1);
	guest_ok(vm, g_wrmsr, MSR_EFER, EFER_64);
	*pte(vm, 1) |= PT_NX;
	expect(load(vm, 1) == old_data(vm, 1), "NX with EFER.NXE");
	guest_ok(vm, g_wrmsr, MSR_EFER, EFER_64 & ~EFER_NXE);
	intercepted(vm, g_load, gva(vm, 1), 0, EXIT_PF);
	guest_ok(vm, g_wrmsr, MSR_EFER, EFER_64);
	expect(load(vm, 1) == old_data(vm, 1), "NX with EFER.NXE again");
}

static void efer_other_asid_keeps(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale(b, 0);
	guest_ok(vm, g_wrmsr, MSR_EFER, EFER_64 & ~EFER_NXE);
	guest_ok(vm, g_wrmsr, MSR_EFER, EFER_64);
	survives(b, 0, "EFER.NXE under another ASID");
	flush_guest(b);
	gone(b, 0, "flush");
}

static void cr_efer_intercepted(struct vm *vm)
{
	stale(vm, 0);
	vm->vmcb->intercept_cr_write = 1 << 0 | 1 << 4;
	intercept_msrs(vm);
	intercepted(vm, g_flip_cr0, CR0_WP, 0, EXIT_CR_WRITE(0));
	survives(vm, 0, "MOV CR0 intercepted");
	intercepted(vm, g_flip_cr4, CR4_PGE, 0, EXIT_CR_WRITE(4));
	survives(vm, 0, "MOV CR4 intercepted");
	intercepted(vm, g_wrmsr, MSR_EFER, EFER_64 & ~EFER_NXE, EXIT_MSR);
	survives(vm, 0, "WRMSR to EFER intercepted");
	intercepted(vm, g_wrmsr, MSR_MTRR_DEFTYPE, 6, EXIT_MSR);
	survives(vm, 0, "WRMSR to an MTRR intercepted");
	flush_guest(vm);
	gone(vm, 0, "flush");
}

void guest_tests(void)
{
	static const struct test tests[] = {
		{ "invlpg", invlpg_page, ALL_MODES },
		{ "invlpg-between-accesses", invlpg_between, ALL_MODES },
		{ "invlpg-splintered", invlpg_splintered, GUEST_TABLE },
		{ "invlpg-small-and-large", invlpg_overlap, NPT_OFF | GUEST_TABLE },
		{ "fault-small-and-large", fault_overlap, NPT_OFF | GUEST_TABLE },
		{ "invlpg-intercepted", invlpg_intercepted, ALL_MODES },
		{ "invlpga", invlpga_asid, ALL_MODES },
		{ "invlpga-other-asid", invlpga_other_asid, ALL_MODES },
		{ "invlpga-asid-0", invlpga_asid_0, ALL_MODES },
		{ "invlpga-guest-physical", invlpga_guest_physical, NESTED_TABLE },
		{ "invlpga-splintered", invlpga_splintered, GUEST_TABLE },
		{ "invlpga-intercepted", invlpga_intercepted, ALL_MODES },
		{ "movcr3", movcr3, ALL_MODES },
		{ "movcr3-other-root", movcr3_other_root, ALL_MODES },
		{ "movcr3-intercepted", movcr3_intercepted, ALL_MODES },
		{ "movcr3-without-pge", movcr3_without_pge, ALL_MODES },
		{ "movcr3-paging-off", movcr3_paging_off, ALL_MODES },
		{ "movcr3-pcid", movcr3_pcid, NPT_OFF | GUEST_TABLE },
		{ "cr4-pcide", cr4_pcide, NPT_OFF | GUEST_TABLE },
		{ "cr4-pge-clear", cr4_pge_clear, ALL_MODES },
		{ "cr4-pge-set", cr4_pge_set, ALL_MODES },
		{ "cr4-pse-set", cr4_pse_set, ALL_MODES },
		{ "cr4-pse-clear", cr4_pse_clear, ALL_MODES },
		{ "cr4-same-value", cr4_same_value, ALL_MODES },
		{ "cr4-pae", cr4_pae, ALL_MODES },
		{ "cr4-la57", cr4_la57, ALL_MODES },
		{ "cr0-pg-clear", cr0_pg, ALL_MODES },
		{ "cr0-pg-set", cr0_pg_set, ALL_MODES },
		{ "cr0-wp", cr0_wp, ALL_MODES },
		{ "cr0-wp-keeps", cr0_wp_keeps, ALL_MODES },
		{ "cr0-cd-nw", cr0_cd_nw, ALL_MODES },
		{ "smep-rights", smep_rights, ALL_MODES },
		{ "smap-rights", smap_rights, ALL_MODES },
		{ "user-rights", user_rights, ALL_MODES },
		{ "cr4-smep-smap-keep", cr4_smep_smap_keep, ALL_MODES },
		{ "pkru-rights", pkru_rights, ALL_MODES },
		{ "cr4-pke-set", cr4_pke_set, ALL_MODES },
		{ "cr4-pke-clear-keeps", cr4_pke_clear_keeps, ALL_MODES },
		{ "efer-nxe", efer_nxe, ALL_MODES },
		{ "efer-other-asid", efer_other_asid_keeps, ALL_MODES },
		{ "cr-writes-intercepted", cr_efer_intercepted, ALL_MODES },
	};

	run_tests("base", tests, ARRAY_SIZE(tests));
}
