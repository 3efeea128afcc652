// SPDX-License-Identifier: GPL-2.0-only
/* Guests: make their tables, run them, and check what they read. */
#include "rules.h"

#define CODE		0x200000ul
#define GUEST_STACK	((u64)guest_stack + sizeof(guest_stack))
#define ALTERNATE	256	/* offset in pages of GUEST_TABLE's new translations */

_Static_assert(__builtin_offsetof(struct vmcb, pause_count) == 0x3e, "");
_Static_assert(__builtin_offsetof(struct vmcb, asid) == 0x58, "");
_Static_assert(__builtin_offsetof(struct vmcb, lbr_ctl) == 0xb8, "");
_Static_assert(__builtin_offsetof(struct vmcb, np_enable) == 0x90, "");
_Static_assert(__builtin_offsetof(struct vmcb, clean) == 0xc0, "");
_Static_assert(__builtin_offsetof(struct vmcb, es) == 0x400, "");
_Static_assert(__builtin_offsetof(struct vmcb, efer) == 0x4d0, "");
_Static_assert(__builtin_offsetof(struct vmcb, cr4) == 0x548, "");
_Static_assert(__builtin_offsetof(struct vmcb, rsp) == 0x5d8, "");
_Static_assert(__builtin_offsetof(struct vmcb, cr2) == 0x640, "");
_Static_assert(sizeof(struct vmcb) == PAGE_SIZE, "");

struct gate guest_idt[GUEST_VECTORS];
static char guest_stack[1024] __attribute__((aligned(16)));
static u32 window;	/* which test this is */
static u32 last_id;

/*
 * Tests do not share addresses.  So a test that fails to flush, or is made to fail, does not affect
 * the next one, and the first access of each test finds no cached translation.
 */
void vm_new_window(void)
{
	if (++window >= 511) {
		puts("Bail out! too many tests\n");
		finish(1);
	}
}

u64 *entry(u64 *root, u64 addr, int level)
{
	u64 *e;
	int l;

	for (l = 4;; l--) {
		e = &root[(addr >> (3 + 9 * l)) & 511];
		if (l == level)
			return e;
		if (!(*e & PT_P))
			*e = (u64)alloc(PAGE_SIZE) | PT_P | PT_RW | PT_US;
		root = (u64 *)(*e & PT_ADDR);
	}
}

static void set_64bit(struct vmcb *c)
{
	struct vmcb_seg data = { .selector = 0x10, .attrib = 0xc93, .limit = ~0u };

	c->cs = (struct vmcb_seg){ .selector = 8, .attrib = 0xa9b, .limit = ~0u };
	c->ds = c->es = c->ss = data;
	c->cr0 = CR0_64;
	c->cr4 = CR4_64;
	c->efer = EFER_64;
}

struct vm *vm_new(enum mode mode, u32 asid)
{
	struct vm *vm = alloc(PAGE_SIZE);
	struct vmcb *c = alloc(PAGE_SIZE);
	u64 addr;

	*vm = (struct vm){ .vmcb = c, .mode = mode, .id = ++last_id };
	vm->cr3 = alloc(PAGE_SIZE);
	vm->va = (u64)window << 38;
	vm->pa = (4 + window) * SIZE_1G;

	/* Supervisor pages, not global: tests map the pages that they check. */
	*entry(vm->cr3, CODE, 2) = CODE | PT_P | PT_RW | PT_PS;

	c->intercept_exceptions = ~0u;
	c->intercept1 = INTERCEPT_SHUTDOWN | INTERCEPT_HLT;
	c->intercept2 = INTERCEPT_VMRUN | INTERCEPT_VMMCALL;
	c->asid = asid;
	c->cr3 = (u64)vm->cr3;
	c->pat = 0x0007040600070406;
	c->dr6 = 0xffff0ff0;
	c->dr7 = 0x400;
	c->gdtr = c->idtr = (struct vmcb_seg){ .limit = 0 };
	c->msrpm = (u64)alloc(2 * PAGE_SIZE);
	c->iopm = (u64)alloc(4 * PAGE_SIZE);
	memset((void *)c->msrpm, 0, 2 * PAGE_SIZE);
	memset((void *)c->iopm, 0, 4 * PAGE_SIZE);
	set_64bit(c);

	if (mode != NPT_OFF) {
		/* The first GB, mapped one to one, for the code and the guest's tables */
		vm->ncr3 = alloc(PAGE_SIZE);
		for (addr = 0; addr < SIZE_1G; addr += SIZE_2M)
			*entry(vm->ncr3, addr, 2) = addr | PT_P | PT_RW | PT_US | PT_PS;
		c->np_enable = 1;
		c->ncr3 = (u64)vm->ncr3;
	}
	return vm;
}

struct vm *vm_like(struct vm *vm, u32 asid)
{
	return vm_new(vm->mode, asid);
}

u64 gva(struct vm *vm, u64 n)
{
	return vm->va + n * PAGE_SIZE;
}

u64 *pte(struct vm *vm, u64 n)
{
	return entry(vm->cr3, gva(vm, n), 1);
}

u64 *npte(struct vm *vm, u64 n)
{
	return entry(vm->ncr3, vm->pa + n * PAGE_SIZE, 1);
}

u64 old_data(struct vm *vm, u64 n)
{
	return 0x01d0000000 | vm->id << 12 | n;
}

u64 new_data(struct vm *vm, u64 n)
{
	return 0x4e30000000 | vm->id << 12 | n;
}

u64 *data_page(u64 value)
{
	u64 *p = alloc(PAGE_SIZE);

	*p = value;
	return p;
}

/* The page to which the guest's and the nested tables currently lead */
u64 *data_of(struct vm *vm, u64 n)
{
	u64 pa = *pte(vm, n) & PT_ADDR;

	return (u64 *)(vm->mode == NPT_OFF ? pa : *entry(vm->ncr3, pa, 1) & PT_ADDR);
}

static void set_addr(u64 *e, u64 addr)
{
	*e = (*e & ~PT_ADDR) | addr;
}

void map_old(struct vm *vm, u64 n)
{
	u64 page = (u64)data_page(old_data(vm, n));

	if (vm->mode == NPT_OFF) {
		*pte(vm, n) = page | PT_P | PT_RW;
		return;
	}
	*pte(vm, n) = (vm->pa + n * PAGE_SIZE) | PT_P | PT_RW;
	*npte(vm, n) = page | PT_P | PT_RW | PT_US;
}

/* Change the translation without a flush; the flags of the entries stay. */
void map_new(struct vm *vm, u64 n)
{
	u64 page = (u64)data_page(new_data(vm, n));

	switch (vm->mode) {
	case NPT_OFF:
		set_addr(pte(vm, n), page);
		break;
	case NESTED_TABLE:
		set_addr(npte(vm, n), page);
		break;
	default:
		*npte(vm, n + ALTERNATE) = page | PT_P | PT_RW | PT_US;
		set_addr(pte(vm, n), vm->pa + (n + ALTERNATE) * PAGE_SIZE);
	}
}

/* Run from CODE until an exit; return RAX. */
u64 guest(struct vm *vm, guest_code *code, u64 rdi, u64 rsi)
{
	struct vmcb *c = vm->vmcb;
	u64 vmcb = (u64)c;

	c->rip = (u64)code;
	c->rsp = GUEST_STACK;
	c->rflags = 2 | vm->rflags;
	c->exit_code = 0xbad;
	asm volatile("clgi; vmrun; stgi"
		     : "+a"(vmcb), "+D"(rdi), "+S"(rsi)
		     :
		     : "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
		       "cc", "memory");
	return c->rax;
}

void guest_ok(struct vm *vm, guest_code *code, u64 rdi, u64 rsi)
{
	guest(vm, code, rdi, rsi);
	expect(vm->vmcb->exit_code == EXIT_VMMCALL,
	       "the guest ended with exit code %lx, information %lx %lx", vm->vmcb->exit_code,
	       vm->vmcb->exit_info1, vm->vmcb->exit_info2);
}

/*
 * A VMRUN that must fail.  QEMU then saves the host's state in place of the guest's; the tests do not
 * depend on that.
 */
void invalid(struct vm *vm)
{
	struct vmcb *saved = alloc(PAGE_SIZE);

	memcpy(saved, vm->vmcb, PAGE_SIZE);
	guest(vm, g_nop, 0, 0);
	expect(vm->vmcb->exit_code == EXIT_INVALID,
	       "exit code %lx, expected that of an invalid VMCB", vm->vmcb->exit_code);
	memcpy(vm->vmcb, saved, PAGE_SIZE);
}

/* Return what the guest reads in its page, or a number that shows how it failed */
u64 load(struct vm *vm, u64 n)
{
	u64 v = guest(vm, g_load, gva(vm, n), 0);

	return vm->vmcb->exit_code == EXIT_VMMCALL ? v : 0xbad0000000000000 | vm->vmcb->exit_code;
}

void store(struct vm *vm, u64 n, u64 value, u64 exit_code)
{
	guest(vm, g_store, gva(vm, n), value);
	expect(vm->vmcb->exit_code == exit_code,
	       "store to page %ld: exit code %lx, not %lx (information %lx)", n,
	       vm->vmcb->exit_code, exit_code, vm->vmcb->exit_info1);
}

static void stale_with(struct vm *vm, u64 n, u64 flags)
{
	u64 v;

	map_old(vm, n);
	*pte(vm, n) |= flags;
	v = load(vm, n);
	expect(v == old_data(vm, n), "page %ld, not touched before: read %lx, expected %lx", n, v,
	       old_data(vm, n));
	map_new(vm, n);
}

/* Have the guest read a page, and change its translation after that. */
void stale(struct vm *vm, u64 n)
{
	stale_with(vm, n, 0);
}

void stale_global(struct vm *vm, u64 n)
{
	stale_with(vm, n, PT_G);
}

/* A VMRUN that only flushes */
void flush(struct vm *vm, enum tlb_control how)
{
	vm->vmcb->tlb_control = how;
	guest_ok(vm, g_nop, 0, 0);
	expect(vm->vmcb->tlb_control == how, "VMRUN wrote TLB_CONTROL back");
	vm->vmcb->tlb_control = KEEP;
}

/* Flush with the narrowest means available, for tests of other rules */
void flush_guest(struct vm *vm)
{
	flush(vm, config.by_asid ? FLUSH_ASID : FLUSH_ALL);
}

static void sees(struct vm *vm, u64 n, bool old, const char *what)
{
	u64 v = load(vm, n), want = old ? old_data(vm, n) : new_data(vm, n);

	expect(v == want, "%s: page %ld of guest %ld, ASID %ld, read %lx, expected the %s %lx",
	       what, n, (u64)vm->id, (u64)vm->vmcb->asid, v, old ? "old" : "new", want);
}

/* Check that WHAT does not flush; without the model, each VMRUN does. */
void survives(struct vm *vm, u64 n, const char *what)
{
	sees(vm, n, config.model, what);
}

void gone(struct vm *vm, u64 n, const char *what)
{
	sees(vm, n, false, what);
}

/* A guest's own flushes keep the translations of guest-physical addresses from the nested tables. */
void gone_for_guest(struct vm *vm, u64 n, const char *what)
{
	sees(vm, n, config.model && vm->mode == NESTED_TABLE, what);
}

/* Without paging, or with the paging mode of CR0 and CR4 */
void to_32bit(struct vm *vm, u64 cr0, u64 cr4)
{
	struct vmcb *c = vm->vmcb;

	c->cs.attrib = 0xc9b;
	c->cr0 = cr0;
	c->cr4 = cr4;
	c->efer = EFER_SVME | EFER_NXE;
}

void to_64bit(struct vm *vm)
{
	set_64bit(vm->vmcb);
	vm->vmcb->cr3 = (u64)vm->cr3;
}

void intercept_msrs(struct vm *vm)
{
	vm->vmcb->intercept1 |= INTERCEPT_MSR;
	memset((void *)vm->vmcb->msrpm, 0xff, 2 * PAGE_SIZE);
}

/* Have the guest handle its exceptions and interrupts itself: it ends with VMMCALL and the vector in RAX. */
void with_handlers(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;
	u32 i;

	for (i = 0; i < GUEST_VECTORS; i++)
		guest_idt[i] = gate(g_handlers + 16 * i);
	c->gdtr = (struct vmcb_seg){ .limit = gdt_end - gdt - 1, .base = (u64)gdt };
	c->idtr = (struct vmcb_seg){ .limit = sizeof(guest_idt) - 1, .base = (u64)guest_idt };
	c->intercept_exceptions = 0;
}

/* Return a counter of this processor, summed over all ASIDs unless MSR_SELECT selects one */
u64 counter(int n)
{
	return rdmsr(MSR_COUNTER(n));
}
