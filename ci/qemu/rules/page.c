// SPDX-License-Identifier: GPL-2.0-only
/* Large pages, and the upper levels of the tables. */
#include "rules.h"

/* Data at OFFSET of a large page of SIZE */
static u64 large_page(u64 size, u64 offset, u64 value)
{
	u64 p = (u64)alloc(size);

	*(u64 *)(p + offset) = value;
	return p;
}

/*
 * The guest's and the nested entry of the first page of the window, at LEVEL and NLEVEL;
 * guest-physical address PA
 */
static void map_at(struct vm *vm, int level, int nlevel, u64 pa, u64 page)
{
	u64 large = level > 1 ? PT_PS : 0;

	if (vm->mode == NPT_OFF) {
		*entry(vm->cr3, vm->va, level) = page | PT_P | PT_RW | large;
		return;
	}
	*entry(vm->cr3, vm->va, level) = pa | PT_P | PT_RW | large;
	*entry(vm->ncr3, pa, nlevel) = page | PT_P | PT_RW | PT_US | (nlevel > 1 ? PT_PS : 0);
}

static void sees_at(struct vm *vm, u64 offset, u64 want, const char *what)
{
	u64 v = guest(vm, g_load, vm->va + offset, 0);

	expect(vm->vmcb->exit_code == EXIT_VMMCALL && v == want,
	       "%s, at %lx: exit code %lx, read %lx, expected %lx", what, offset,
	       vm->vmcb->exit_code, v, want);
}

/* One entry covers the whole page, including parts that were never accessed. */
static void one_entry(struct vm *vm, int level, u64 size, u64 old, u64 new)
{
	u64 far = size - PAGE_SIZE, pa = vm->pa;

	*(u64 *)old = 1;
	*(u64 *)(old + far) = 2;
	*(u64 *)new = 3;
	*(u64 *)(new + far) = 4;
	map_at(vm, level, level, pa, old);
	sees_at(vm, 0, 1, "first access");
	if (vm->mode == GUEST_TABLE)
		pa += size;
	map_at(vm, level, level, pa, new);
	sees_at(vm, far, config.model ? 2 : 4, "the other end of the large page");
	sees_at(vm, 0, config.model ? 1 : 3, "again");
	/* Not the page before it */
	guest_ok(vm, g_invlpg, vm->va - PAGE_SIZE, 0);
	sees_at(vm, 0, config.model ? 1 : 3, "INVLPG of the page before");
	guest_ok(vm, g_invlpg, vm->va + size / 2, 0);
	sees_at(vm, 0, config.model && vm->mode == NESTED_TABLE ? 1 : 3, "INVLPG in the middle");
	flush_guest(vm);
	sees_at(vm, 0, 3, "flush");
	sees_at(vm, far, 4, "flush");
}

static void pages_2m(struct vm *vm)
{
	one_entry(vm, 2, SIZE_2M, (u64)alloc(SIZE_2M), (u64)alloc(SIZE_2M));
}

/* These addresses are free: between the image and the pool, and in the second GB. */
#define PLACE	(48ul << 20)

static void pages_1g(struct vm *vm)
{
	/* Two GB of guest-physical addresses that no other test uses */
	u64 pa = vm->mode == NPT_OFF ? 0 : (768 + 2 * vm->mode) * SIZE_1G;

	if (!(cpuid(0x80000001, 0).d & (1 << 26)))
		return skip("the CPU model has no 1 GB pages");
	*(u64 *)PLACE = 1;
	*(u64 *)(PLACE + SIZE_2M) = 2;
	*(u64 *)(SIZE_1G + PLACE) = 3;
	*(u64 *)(SIZE_1G + PLACE + SIZE_2M) = 4;
	map_at(vm, 3, 3, pa, 0);
	sees_at(vm, PLACE, 1, "first access");
	map_at(vm, 3, 3, vm->mode == GUEST_TABLE ? pa + SIZE_1G : pa, SIZE_1G);
	sees_at(vm, PLACE, config.model ? 1 : 3, "again");
	sees_at(vm, PLACE + SIZE_2M, config.model ? 2 : 4, "another part");
	guest_ok(vm, g_invlpg, vm->va + SIZE_1G / 2, 0);
	sees_at(vm, PLACE, config.model && vm->mode == NESTED_TABLE ? 1 : 3,
		"INVLPG in the middle");
	flush_guest(vm);
	sees_at(vm, PLACE, 3, "flush");
	sees_at(vm, PLACE + SIZE_2M, 4, "flush");
}

/*
 * 4 KB pages of the guest in 2 MB nested ones: each has its own entry, and only the entry by
 * guest-physical address is large.
 */
static void small_in_large(struct vm *vm)
{
	u64 old = large_page(SIZE_2M, 0, 1), new = large_page(SIZE_2M, 0, 5), pa = vm->pa;
	u64 n;

	for (n = 0; n < 4; n++) {
		*(u64 *)(old + n * PAGE_SIZE) = 1 + n;
		*(u64 *)(new + n * PAGE_SIZE) = 5 + n;
		*pte(vm, n) = (pa + n * PAGE_SIZE) | PT_P | PT_RW;
	}
	*entry(vm->ncr3, pa, 2) = old | PT_P | PT_RW | PT_US | PT_PS;
	sees_at(vm, 0, 1, "first access");
	/* Page 1 of the guest was not accessed before, so its own entry is read now. */
	*pte(vm, 1) = (pa + 3 * PAGE_SIZE) | PT_P | PT_RW;
	sees_at(vm, PAGE_SIZE, 4, "the page beside it");
	*entry(vm->ncr3, pa, 2) = new | PT_P | PT_RW | PT_US | PT_PS;
	sees_at(vm, 0, config.model ? 1 : 5, "page touched before");
	sees_at(vm, 2 * PAGE_SIZE, config.model ? 3 : 7,
		"untouched page of the same guest-physical page");
	flush_guest(vm);
	sees_at(vm, 0, 5, "flush");
	sees_at(vm, 2 * PAGE_SIZE, 7, "flush");
}

/* A 2 MB page of the guest in 4 KB nested ones that are not neighbours */
static void large_in_small(struct vm *vm)
{
	u64 n, pages[3];

	*entry(vm->cr3, vm->va, 2) = vm->pa | PT_P | PT_RW | PT_PS;
	for (n = 0; n < 3; n++)
		pages[2 - n] = (u64)data_page(3 - n);
	for (n = 0; n < 3; n++)
		*npte(vm, n) = pages[n] | PT_P | PT_RW | PT_US;
	sees_at(vm, 0, 1, "first access");
	sees_at(vm, PAGE_SIZE, 2, "second piece");
	*npte(vm, 0) = (u64)data_page(4) | PT_P | PT_RW | PT_US;
	*npte(vm, 2) = (u64)data_page(5) | PT_P | PT_RW | PT_US;
	sees_at(vm, 0, config.model ? 1 : 4, "piece touched before");
	sees_at(vm, 2 * PAGE_SIZE, 5, "piece not touched before");
	flush_guest(vm);
	sees_at(vm, 0, 4, "flush");
}

/*
 * Structure caches.  Pages FAR and 0 share the entry of LEVEL, and the tables that it points to, but
 * not the entry below it.  Page FURTHER is next to FAR.
 */
#define FAR(level)	(1ul << (3 + 9 * ((level) - 1)))
#define FURTHER(level)	(FAR(level) + PAGE_SIZE)

static void map_through(struct vm *vm, u64 offset, u64 value)
{
	u64 page = (u64)data_page(value);

	if (vm->mode == NESTED_TABLE) {
		*entry(vm->cr3, vm->va + offset, 1) = (vm->pa + offset) | PT_P | PT_RW;
		*entry(vm->ncr3, vm->pa + offset, 1) = page | PT_P | PT_RW | PT_US;
	} else {
		/* The first GB is mapped one to one, see vm_new(). */
		*entry(vm->cr3, vm->va + offset, 1) = page | PT_P | PT_RW;
	}
}

/* The entry of page 0, in the tables that will change */
static u64 *upper_entry(struct vm *vm, int level)
{
	if (vm->mode == NESTED_TABLE)
		return entry(vm->ncr3, vm->pa, level);
	return entry(vm->cr3, vm->va, level);
}

/* Have the guest read page 0, then link other tables below the entry of LEVEL. */
static void stale_table(struct vm *vm, int level)
{
	u64 *e;

	/* The previous test uses the same entry of the highest level. */
	flush_guest(vm);
	map_through(vm, 0, 1);
	map_through(vm, FAR(level), 2);
	map_through(vm, FURTHER(level), 3);
	sees_at(vm, 0, 1, "first access");
	e = upper_entry(vm, level);
	*e = (u64)alloc(PAGE_SIZE) | PT_P | PT_RW | PT_US;
	map_through(vm, 0, 4);
	map_through(vm, FAR(level), 5);
	map_through(vm, FURTHER(level), 6);
}

/*
 * The first access to a page still uses the old table; INVLPG of any page ends that, and drops nothing
 * else.
 */
static void structure(struct vm *vm, int level)
{
	stale_table(vm, level);
	sees_at(vm, FAR(level), config.model ? 2 : 5, "page not touched before");
	if (vm->mode == NESTED_TABLE)
		guest_ok(vm, g_reload_cr3, 0, 0);
	sees_at(vm, 0, config.model ? 1 : 4, "page touched before");
	if (vm->mode == NESTED_TABLE)
		flush_guest(vm);
	else
		guest_ok(vm, g_invlpg, 0x123456000, 0);
	sees_at(vm, FURTHER(level), 6, "upper levels flushed, page not touched before");
	if (vm->mode != NESTED_TABLE) {
		sees_at(vm, 0, config.model ? 1 : 4, "INVLPG of another page");
		sees_at(vm, FAR(level), config.model ? 2 : 5, "INVLPG of another page");
		flush_guest(vm);
	}
	sees_at(vm, 0, 4, "flush");
	sees_at(vm, FAR(level), 5, "flush");
}

static void structure_pde(struct vm *vm)
{
	structure(vm, 2);
}

static void structure_pdpe(struct vm *vm)
{
	structure(vm, 3);
}

static void structure_pml4e(struct vm *vm)
{
	structure(vm, 4);
}

static void structure_movcr3(struct vm *vm)
{
	stale_table(vm, 2);
	sees_at(vm, FAR(2), config.model ? 2 : 5, "page not touched before");
	guest_ok(vm, g_reload_cr3, 0, 0);
	sees_at(vm, FURTHER(2), 6, "MOV CR3");
	sees_at(vm, 0, 4, "MOV CR3");
}

static void structure_pge(struct vm *vm)
{
	stale_table(vm, 2);
	sees_at(vm, FAR(2), config.model ? 2 : 5, "page not touched before");
	guest_ok(vm, g_flip_cr4, CR4_PGE, 0);
	sees_at(vm, FURTHER(2), 6, "CR4.PGE there and back");
}

static void structure_tlb_control(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	stale_table(vm, 2);
	flush(b, config.by_asid ? FLUSH_ASID : KEEP);
	sees_at(vm, FAR(2), config.model ? 2 : 5, "flush of another ASID");
	flush(vm, config.by_asid ? FLUSH_NONGLOBAL : FLUSH_ALL);
	sees_at(vm, FURTHER(2), 6, "TLB_CONTROL 7, or 1");
	sees_at(vm, 0, 4, "TLB_CONTROL 7, or 1");
}

static void structure_asid(struct vm *vm)
{
	stale_table(vm, 2);
	vm->vmcb->asid = 2;
	sees_at(vm, FAR(2), 5, "another ASID");
	vm->vmcb->asid = 1;
	sees_at(vm, FURTHER(2), config.model ? 3 : 6, "the ASID it had");
	flush_guest(vm);
	sees_at(vm, FAR(2), 5, "flush");
}

/* A walk that uses a cached upper level never raises a fault. */
static void structure_fault(struct vm *vm)
{
	map_through(vm, 0, 1);
	map_through(vm, FURTHER(2), 3);
	sees_at(vm, 0, 1, "first access");
	*upper_entry(vm, 2) = (u64)alloc(PAGE_SIZE) | PT_P | PT_RW | PT_US;
	map_through(vm, FAR(2), 5);
	map_through(vm, FURTHER(2), 6);
	sees_at(vm, FAR(2), 5, "not present in the old table");
	sees_at(vm, FURTHER(2), 6, "after what would have been a fault");
}

/*
 * A nested translation leads to the guest's table: if the hypervisor moves the table, walks read the
 * old one until the hypervisor flushes; the guest's own flushes do not change that.
 */
static void table_moved(struct vm *vm)
{
	u64 *old = alloc(PAGE_SIZE), *new = alloc(PAGE_SIZE), n;

	for (n = 0; n < 4; n++) {
		old[n] = (u64)data_page(1 + n) | PT_P | PT_RW;
		new[n] = (u64)data_page(5 + n) | PT_P | PT_RW;
	}
	*entry(vm->cr3, vm->va, 2) = vm->pa | PT_P | PT_RW;
	*npte(vm, 0) = (u64)old | PT_P | PT_RW | PT_US;
	sees_at(vm, 0, 1, "first access");
	*npte(vm, 0) = (u64)new | PT_P | PT_RW | PT_US;
	sees_at(vm, 0, config.model ? 1 : 5, "the table moved, page touched before");
	sees_at(vm, PAGE_SIZE, config.model ? 2 : 6, "the table moved, page not touched before");
	guest_ok(vm, g_reload_cr3, 0, 0);
	sees_at(vm, 2 * PAGE_SIZE, config.model ? 3 : 7, "MOV CR3");
	flush_guest(vm);
	for (n = 0; n < 4; n++)
		sees_at(vm, n * PAGE_SIZE, 5 + n, "flush");
}

/* A walk that fails at the guest's table is repeated, too, with the current tables. */
static void table_rights(struct vm *vm)
{
	u64 *table = alloc(PAGE_SIZE);

	table[0] = (u64)data_page(1) | PT_P | PT_RW;
	*entry(vm->cr3, vm->va, 2) = vm->pa | PT_P | PT_RW;
	guest(vm, g_load, vm->va, 0);
	expect(vm->vmcb->exit_code == EXIT_NPF, "the guest's table is not there: exit code %lx",
	       vm->vmcb->exit_code);
	/* Walks need write access because they set A. */
	*npte(vm, 0) = (u64)table | PT_P | PT_US;
	guest(vm, g_load, vm->va, 0);
	expect(vm->vmcb->exit_code == EXIT_NPF, "the guest's table is read-only: exit code %lx",
	       vm->vmcb->exit_code);
	*npte(vm, 0) |= PT_RW;
	sees_at(vm, 0, 1, "the guest's table can be written");
	table[0] = (u64)data_page(2) | PT_P | PT_RW;
	sees_at(vm, 0, config.model ? 1 : 2, "changed");
	flush_guest(vm);
	sees_at(vm, 0, 2, "flush");
}

/* If a cached upper level forbids an access, the walk is repeated without it. */
static void structure_rights(struct vm *vm)
{
	u64 *pde = entry(vm->cr3, vm->va, 2);

	map_through(vm, 0, 1);
	map_through(vm, FAR(2), 2);
	*pde &= ~PT_RW;
	sees_at(vm, 0, 1, "first access");
	*pde |= PT_RW;
	guest_ok(vm, g_store, vm->va + FAR(2), 9);
	sees_at(vm, FAR(2), 9, "stored");
}

void page_tests(void)
{
	static const struct test tests[] = {
		{ "large-pages-2m", pages_2m, ALL_MODES },
		{ "large-pages-1g", pages_1g, ALL_MODES },
		{ "small-page-in-large-nested", small_in_large, NESTED_TABLE },
		{ "large-page-in-small-nested", large_in_small, NESTED_TABLE },
		{ "guest-table-moved", table_moved, NESTED_TABLE },
		{ "guest-table-rights-raised", table_rights, NESTED_TABLE },
		{ "structure-cache-pde", structure_pde, ALL_MODES },
		{ "structure-cache-pdpe", structure_pdpe, ALL_MODES },
		/* The nested entry of this level maps the guest's tables and code, too. */
		{ "structure-cache-pml4e", structure_pml4e, NPT_OFF | GUEST_TABLE },
		{ "structure-cache-movcr3", structure_movcr3, NPT_OFF | GUEST_TABLE },
		{ "structure-cache-cr4-pge", structure_pge, NPT_OFF | GUEST_TABLE },
		{ "structure-cache-tlb-control", structure_tlb_control, ALL_MODES },
		{ "structure-cache-asid", structure_asid, ALL_MODES },
		{ "structure-cache-fault", structure_fault, ALL_MODES },
		{ "structure-cache-rights", structure_rights, NPT_OFF | GUEST_TABLE },
	};

	run_tests("base", tests, ARRAY_SIZE(tests));
}
