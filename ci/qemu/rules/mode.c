// SPDX-License-Identifier: GPL-2.0-only
/* Guests in other paging modes: none, 32 bits, PAE, five levels. */
#include "rules.h"

#define CODE_4M		0ul		/* the 4 MB, or two times 2 MB, that the code is in */
#define CR4_32		(CR4_PGE | CR4_PSE)

/*
 * The address of the test pages of a 32-bit guest: it differs from test to test, and vm_new() maps
 * nothing there.
 */
static u64 va32(struct vm *vm)
{
	static u64 last = SIZE_1G;
	static struct vm *of;

	if (of != vm) {
		of = vm;
		last += 4 * SIZE_2M;
	}
	return last;
}

static u64 pa32(struct vm *vm)
{
	return va32(vm) + SIZE_1G;
}

/* Return the address for the guest's entry, so that it reads VALUE there, and VALUE + 1 at OFFSET */
static u64 target(struct vm *vm, u64 size, u64 offset, bool new, u64 value)
{
	u64 page = (u64)alloc(size), pa = pa32(vm), at;

	*(u64 *)page = value;
	*(u64 *)(page + offset) = value + 1;
	if (vm->mode == NPT_OFF)
		return page;
	if (vm->mode == GUEST_TABLE && new)
		pa += 2 * SIZE_2M;
	for (at = 0; at < size; at += size < SIZE_2M ? PAGE_SIZE : SIZE_2M)
		*entry(vm->ncr3, pa + at, size < SIZE_2M ? 1 : 2) =
			(page + at) | PT_P | PT_RW | PT_US | (size < SIZE_2M ? 0 : PT_PS);
	return pa;
}

static void sees32(struct vm *vm, u64 addr, u64 want, const char *what)
{
	u64 v = (u32)guest(vm, g32_load, addr, 0);

	expect(vm->vmcb->exit_code == EXIT_VMMCALL && v == want,
	       "%s, at %lx: exit code %lx, read %lx, expected %lx", what, addr, vm->vmcb->exit_code,
	       v, want);
}

/* At ADDR and ADDR + OFFSET, in one page of the guest: 1 and 2, then 3 and 4 */
static void old_then_new(struct vm *vm, u64 addr, u64 offset)
{
	bool keeps = config.model && vm->mode == NESTED_TABLE;

	sees32(vm, addr, config.model ? 1 : 3, "changed");
	sees32(vm, addr + offset, config.model ? 2 : 4, "changed");
	guest_ok(vm, g32_invlpg, addr - PAGE_SIZE, 0);
	sees32(vm, addr, config.model ? 1 : 3, "INVLPG of the page before");
	guest_ok(vm, g32_invlpg, addr + offset, 0);
	sees32(vm, addr, keeps ? 1 : 3, "INVLPG");
	sees32(vm, addr + offset, keeps ? 2 : 4, "INVLPG");
	flush_guest(vm);
	sees32(vm, addr, 3, "flush");
	sees32(vm, addr + offset, 4, "flush");
}

/* Virtual addresses are guest-physical ones, but INVLPG does not drop translations of guest-physical addresses. */
static void paging_off(struct vm *vm)
{
	u64 addr;

	to_32bit(vm, CR0_ET | CR0_PE, 0);
	addr = target(vm, PAGE_SIZE, 8, false, 1);
	sees32(vm, addr, 1, "first access");
	sees32(vm, addr + 8, 2, "first access");
	target(vm, PAGE_SIZE, 8, true, 3);
	old_then_new(vm, addr, 8);
}

static void bits32(struct vm *vm, u64 size, u64 offset)
{
	u64 va = va32(vm);
	u32 *pd = alloc(PAGE_SIZE), *pt = alloc(PAGE_SIZE);
	u32 *e = size == PAGE_SIZE ? pt : &pd[va >> 22];
	u32 flags = PT_P | PT_RW | (size == PAGE_SIZE ? 0 : PT_PS);

	to_32bit(vm, CR0_64, CR4_32);
	vm->vmcb->cr3 = (u64)pd;
	pd[0] = CODE_4M | PT_P | PT_RW | PT_PS;
	pd[va >> 22] = (u64)pt | PT_P | PT_RW;
	*e = target(vm, size, offset, false, 1) | flags;
	sees32(vm, va, 1, "first access");
	sees32(vm, va + offset, 2, "first access");
	*e = target(vm, size, offset, true, 3) | flags;
	old_then_new(vm, va, offset);
}

static void bits32_4k(struct vm *vm)
{
	bits32(vm, PAGE_SIZE, 8);
}

/* With nested paging the page has two nested pages: INVLPG of one half drops both. */
static void bits32_4m(struct vm *vm)
{
	bits32(vm, 2 * SIZE_2M, SIZE_2M + PAGE_SIZE);
}

static void pae(struct vm *vm, u64 size, u64 offset)
{
	u64 *pdpt = alloc(PAGE_SIZE), *low = alloc(PAGE_SIZE);
	u64 *pd = alloc(PAGE_SIZE), *pt = alloc(PAGE_SIZE);
	u64 va = va32(vm), *e = size == PAGE_SIZE ? pt : &pd[va >> 21 & 511];
	u64 flags = PT_P | PT_RW | (size == PAGE_SIZE ? 0 : PT_PS);

	to_32bit(vm, CR0_64, CR4_64);
	vm->vmcb->cr3 = (u64)pdpt;
	pdpt[0] = (u64)low | PT_P;
	pdpt[va >> 30] = (u64)pd | PT_P;
	low[1] = SIZE_2M | PT_P | PT_RW | PT_PS;
	pd[va >> 21 & 511] = (u64)pt | PT_P | PT_RW;
	*e = target(vm, size, offset, false, 1) | flags;
	sees32(vm, va, 1, "first access");
	sees32(vm, va + offset, 2, "first access");
	*e = target(vm, size, offset, true, 3) | flags;
	old_then_new(vm, va, offset);
}

static void pae_4k(struct vm *vm)
{
	pae(vm, PAGE_SIZE, 8);
}

static void pae_2m(struct vm *vm)
{
	pae(vm, SIZE_2M, SIZE_2M - PAGE_SIZE);
}

/* Upper levels of these tables are cached like those of long mode. */
static void pae_structure(struct vm *vm)
{
	u64 *pdpt = alloc(PAGE_SIZE), *low = alloc(PAGE_SIZE);
	u64 *pd = alloc(PAGE_SIZE), *pt = alloc(PAGE_SIZE);
	u64 va = va32(vm), n;

	to_32bit(vm, CR0_64, CR4_64);
	vm->vmcb->cr3 = (u64)pdpt;
	pdpt[0] = (u64)low | PT_P;
	pdpt[va >> 30] = (u64)pd | PT_P;
	low[1] = SIZE_2M | PT_P | PT_RW | PT_PS;
	pd[va >> 21 & 511] = (u64)pt | PT_P | PT_RW;
	for (n = 0; n < 3; n++)
		pt[n] = (u64)data_page(1 + n) | PT_P | PT_RW;
	sees32(vm, va, 1, "first access");
	pt = alloc(PAGE_SIZE);
	for (n = 0; n < 3; n++)
		pt[n] = (u64)data_page(4 + n) | PT_P | PT_RW;
	pd[va >> 21 & 511] = (u64)pt | PT_P | PT_RW;
	sees32(vm, va + PAGE_SIZE, config.model ? 2 : 5, "page not touched before");
	guest_ok(vm, g32_invlpg, 0x12345000, 0);
	sees32(vm, va + 2 * PAGE_SIZE, 6, "upper levels flushed, page not touched before");
	sees32(vm, va + PAGE_SIZE, config.model ? 2 : 5, "INVLPG of another page");
	flush_guest(vm);
	sees32(vm, va, 4, "flush");
	sees32(vm, va + PAGE_SIZE, 5, "flush");
}

static u64 *to_la57(struct vm *vm)
{
	u64 *root = alloc(PAGE_SIZE);

	root[0] = (u64)vm->cr3 | PT_P | PT_RW | PT_US;
	vm->vmcb->cr4 |= CR4_LA57;
	vm->vmcb->cr3 = (u64)root;
	return root;
}

static bool no_la57(void)
{
	if (cpuid(7, 0).c & (1 << 16))
		return false;
	skip("the CPU model has no LA57");
	return true;
}

static void la57(struct vm *vm)
{
	if (no_la57())
		return;
	to_la57(vm);
	stale(vm, 0);
	stale_global(vm, 1);
	survives(vm, 0, "five levels");
	guest_ok(vm, g_reload_cr3, 0, 0);
	gone_for_guest(vm, 0, "MOV CR3");
	survives(vm, 1, "MOV CR3, global");
	guest_ok(vm, g_invlpg, gva(vm, 1), 0);
	gone_for_guest(vm, 1, "INVLPG");
	stale(vm, 2);
	survives(vm, 2, "five levels");
	flush_guest(vm);
	gone(vm, 2, "flush");
}

/* The entry of the fifth level is cached like the others. */
static void la57_structure(struct vm *vm)
{
	u64 *root, *pml4 = alloc(PAGE_SIZE), far = 1ul << 47, v;

	if (no_la57())
		return;
	root = to_la57(vm);
	/* This level is shared with other tests. */
	flush_guest(vm);
	*entry(vm->cr3, vm->va, 1) = (u64)data_page(1) | PT_P | PT_RW;
	*entry(vm->cr3, vm->va ^ far, 1) = (u64)data_page(2) | PT_P | PT_RW;
	v = guest(vm, g_load, vm->va, 0);
	expect(v == 1, "first access: read %lx", v);
	memcpy(pml4, vm->cr3, PAGE_SIZE);
	*entry(pml4, vm->va ^ far, 4) = 0;
	*entry(pml4, vm->va ^ far, 1) = (u64)data_page(3) | PT_P | PT_RW;
	*entry(pml4, (vm->va ^ far) + PAGE_SIZE, 1) = (u64)data_page(4) | PT_P | PT_RW;
	root[0] = (u64)pml4 | PT_P | PT_RW | PT_US;
	v = guest(vm, g_load, vm->va ^ far, 0);
	expect(v == (config.model ? 2 : 3), "page not touched before: read %lx", v);
	guest_ok(vm, g_invlpg, 0x123456000, 0);
	v = guest(vm, g_load, (vm->va ^ far) + PAGE_SIZE, 0);
	expect(v == 4, "upper levels flushed: read %lx", v);
	flush_guest(vm);
	v = guest(vm, g_load, vm->va ^ far, 0);
	expect(v == 3, "flush: read %lx", v);
}

void mode_tests(void)
{
	static const struct test tests[] = {
		{ "paging-off", paging_off, NESTED_TABLE },
		{ "paging-32-bit", bits32_4k, ALL_MODES },
		{ "paging-32-bit-4m", bits32_4m, ALL_MODES },
		{ "paging-pae", pae_4k, ALL_MODES },
		{ "paging-pae-2m", pae_2m, ALL_MODES },
		{ "paging-pae-structure-cache", pae_structure, NPT_OFF | GUEST_TABLE },
		{ "paging-la57", la57, ALL_MODES },
		{ "paging-la57-structure-cache", la57_structure, NPT_OFF | GUEST_TABLE },
	};

	run_tests("base", tests, ARRAY_SIZE(tests));
}
