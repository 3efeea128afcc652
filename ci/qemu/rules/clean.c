// SPDX-License-Identifier: GPL-2.0-only
/* VMCB clean bits: the processor need not read fields again that it has read once. */
#include "rules.h"

/* Two values of a field, and how the guest or its exit shows which one was used */
struct field {
	int group;
	void (*set)(struct vm *vm, bool second);
	u64 (*look)(struct vm *vm);
};

static u64 result(struct vm *vm, guest_code *code, u64 rdi)
{
	u64 v = guest(vm, code, rdi, 0);

	return vm->vmcb->exit_code == EXIT_VMMCALL ? v : 0xbad0000000000000 | vm->vmcb->exit_code;
}

static u64 with_clean(struct vm *vm, const struct field *f, bool second, u32 clean)
{
	u64 v;

	f->set(vm, second);
	vm->vmcb->clean = clean;
	v = f->look(vm);
	vm->vmcb->clean = 0;
	return v;
}

static void clean_field(struct vm *vm, const struct field *f)
{
	u32 bit = 1u << f->group;
	u64 first, second, v;

	first = with_clean(vm, f, false, 0);
	second = with_clean(vm, f, true, 0);
	expect(first != second, "both values look the same: %lx", first);
	first = with_clean(vm, f, false, 0);
	v = with_clean(vm, f, true, bit);
	expect(v == (config.clean ? first : second), "changed, marked clean: %lx", v);
	v = with_clean(vm, f, true, CLEAN_ALL);
	expect(v == (config.clean ? first : second), "changed, all marked clean: %lx", v);
	v = with_clean(vm, f, true, CLEAN_ALL & ~bit);
	expect(v == second, "changed, all others marked clean: %lx", v);
	v = with_clean(vm, f, false, bit);
	expect(v == (config.clean ? second : first), "changed back, marked clean: %lx", v);
	v = with_clean(vm, f, false, 0);
	expect(v == first, "changed back: %lx", v);
}

#define FIELD_TEST(name, group, set, look)						\
static void name(struct vm *vm)								\
{											\
	static const struct field f = { group, set, look };				\
											\
	clean_field(vm, &f);								\
}

static void set_invlpg(struct vm *vm, bool second)
{
	vm->vmcb->intercept1 = INTERCEPT_SHUTDOWN | (second ? INTERCEPT_INVLPG : 0);
}

static u64 look_invlpg(struct vm *vm)
{
	guest(vm, g_invlpg, gva(vm, 0), 0);
	return vm->vmcb->exit_code;
}
FIELD_TEST(clean_intercept1, CLEAN_INTERCEPTS, set_invlpg, look_invlpg)

static void set_vmmcall(struct vm *vm, bool second)
{
	vm->vmcb->intercept2 = INTERCEPT_VMRUN | (second ? 0 : INTERCEPT_VMMCALL);
}

static u64 look_nop(struct vm *vm)
{
	guest(vm, g_nop, 0, 0);
	return vm->vmcb->exit_code;
}
FIELD_TEST(clean_intercept2, CLEAN_INTERCEPTS, set_vmmcall, look_nop)

static void set_cr_write(struct vm *vm, bool second)
{
	vm->vmcb->intercept_cr_write = second ? 1 << 3 : 0;
}

static u64 look_cr_write(struct vm *vm)
{
	guest(vm, g_reload_cr3, 0, 0);
	return vm->vmcb->exit_code;
}
FIELD_TEST(clean_intercept_cr, CLEAN_INTERCEPTS, set_cr_write, look_cr_write)

static void set_cr_read(struct vm *vm, bool second)
{
	vm->vmcb->intercept_cr_read = second ? 1 << 0 : 0;
}

static u64 look_cr_read(struct vm *vm)
{
	return result(vm, g_read_cr0, 0);
}
FIELD_TEST(clean_intercept_cr_read, CLEAN_INTERCEPTS, set_cr_read, look_cr_read)

static void set_dr_read(struct vm *vm, bool second)
{
	vm->vmcb->intercept_dr_read = second ? 1 << 7 : 0;
}

static u64 look_dr7(struct vm *vm)
{
	return result(vm, g_read_dr7, 0);
}
FIELD_TEST(clean_intercept_dr, CLEAN_INTERCEPTS, set_dr_read, look_dr7)

static void set_exceptions(struct vm *vm, bool second)
{
	/* A page fault without a handler becomes a shutdown. */
	vm->vmcb->intercept_exceptions = second ? 0 : ~0u;
}

static u64 look_fault(struct vm *vm)
{
	guest(vm, g_load, 0x123456000, 0);
	return vm->vmcb->exit_code;
}
FIELD_TEST(clean_intercept_exceptions, CLEAN_INTERCEPTS, set_exceptions, look_fault)

static void set_tsc(struct vm *vm, bool second)
{
	vm->vmcb->tsc_offset = second ? 2ul << 60 : 0;
}

static u64 look_tsc(struct vm *vm)
{
	return result(vm, g_rdtsc, 0) >> 60;
}
FIELD_TEST(clean_tsc_offset, CLEAN_INTERCEPTS, set_tsc, look_tsc)

/* Intercept everything, or nothing.  The pages of the window have no other use here. */
static u64 all_ones(void)
{
	static u64 map;

	if (!map) {
		map = (u64)alloc(4 * PAGE_SIZE);
		memset((void *)map, 0xff, 4 * PAGE_SIZE);
	}
	return map;
}

static u64 all_zeroes(void)
{
	static u64 map;

	if (!map) {
		map = (u64)alloc(4 * PAGE_SIZE);
		memset((void *)map, 0, 4 * PAGE_SIZE);
	}
	return map;
}

static void set_msrpm(struct vm *vm, bool second)
{
	vm->vmcb->intercept1 |= INTERCEPT_MSR;
	vm->vmcb->msrpm = second ? all_ones() : all_zeroes();
}

static u64 look_msr(struct vm *vm)
{
	guest(vm, g_rdmsr, MSR_STAR, 0);
	return vm->vmcb->exit_code;
}
FIELD_TEST(clean_msrpm, CLEAN_MAPS, set_msrpm, look_msr)

static void set_iopm(struct vm *vm, bool second)
{
	vm->vmcb->intercept1 |= INTERCEPT_IOIO;
	vm->vmcb->iopm = second ? all_ones() : all_zeroes();
}

static u64 look_io(struct vm *vm)
{
	guest(vm, g_in, 0x80, 0);
	return vm->vmcb->exit_code;
}
FIELD_TEST(clean_iopm, CLEAN_MAPS, set_iopm, look_io)

/* The entries that a guest finds in the TLB show which ASID it has. */
static void set_asid(struct vm *vm, bool second)
{
	vm->vmcb->asid = second ? 2 : 1;
}

static u64 look_page(struct vm *vm)
{
	return load(vm, 0);
}

static void clean_asid(struct vm *vm)
{
	static const struct field f = { CLEAN_ASID, set_asid, look_page };

	stale(vm, 0);
	clean_field(vm, &f);
}

/* The processor flushes the ASID that it uses, not the one in memory. */
static void clean_asid_flush(struct vm *vm)
{
	u32 used = config.clean ? 1 : 2, other = config.clean ? 2 : 1;

	map_old(vm, 0);
	vm->vmcb->asid = 2;
	load(vm, 0);
	vm->vmcb->asid = 1;
	load(vm, 0);
	map_new(vm, 0);
	vm->vmcb->asid = 2;
	vm->vmcb->clean = 1 << CLEAN_ASID;
	flush(vm, FLUSH_ASID);
	vm->vmcb->clean = 0;
	vm->vmcb->asid = other;
	survives(vm, 0, "TLB_CONTROL 3, ASID marked clean, the other ASID");
	vm->vmcb->asid = used;
	gone(vm, 0, "TLB_CONTROL 3, ASID marked clean, the ASID used");
}

static void set_tpr(struct vm *vm, bool second)
{
	vm->vmcb->int_ctl = V_INTR_MASKING | (second ? 7 : 3);
}

static u64 look_tpr(struct vm *vm)
{
	return result(vm, g_read_cr8, 0);
}
FIELD_TEST(clean_tpr, CLEAN_INTR, set_tpr, look_tpr)

static u64 *other_ncr3;

static void set_ncr3(struct vm *vm, bool second)
{
	vm->vmcb->ncr3 = (u64)(second ? other_ncr3 : vm->ncr3);
}

static u64 look_flushed(struct vm *vm)
{
	u64 v;

	vm->vmcb->tlb_control = FLUSH_ALL;
	v = load(vm, 0);
	vm->vmcb->tlb_control = KEEP;
	return v;
}

static void clean_ncr3(struct vm *vm)
{
	static const struct field f = { CLEAN_NP, set_ncr3, look_flushed };
	struct vm *b = vm_like(vm, 1);

	map_old(vm, 0);
	map_old(b, 0);
	other_ncr3 = b->ncr3;
	clean_field(vm, &f);
}

static void set_cr0(struct vm *vm, bool second)
{
	vm->vmcb->cr0 = CR0_64 | (second ? CR0_MP : 0);
}

static u64 look_cr0(struct vm *vm)
{
	return result(vm, g_read_cr0, 0);
}
FIELD_TEST(clean_cr0, CLEAN_CR, set_cr0, look_cr0)

static u64 *other_cr3;

static void set_cr3(struct vm *vm, bool second)
{
	vm->vmcb->cr3 = (u64)(second ? other_cr3 : vm->cr3);
}

static u64 look_cr3(struct vm *vm)
{
	return result(vm, g_read_cr3, 0);
}

static void clean_cr3(struct vm *vm)
{
	static const struct field f = { CLEAN_CR, set_cr3, look_cr3 };

	other_cr3 = alloc(PAGE_SIZE);
	memcpy(other_cr3, vm->cr3, PAGE_SIZE);
	clean_field(vm, &f);
}

static void set_cr4(struct vm *vm, bool second)
{
	vm->vmcb->cr4 = CR4_64 | (second ? CR4_DE : 0);
}

static u64 look_cr4(struct vm *vm)
{
	return result(vm, g_read_cr4, 0);
}
FIELD_TEST(clean_cr4, CLEAN_CR, set_cr4, look_cr4)

static void set_efer(struct vm *vm, bool second)
{
	vm->vmcb->efer = EFER_64 | (second ? EFER_SCE : 0);
}

static u64 look_efer(struct vm *vm)
{
	return result(vm, g_rdmsr, MSR_EFER);
}
FIELD_TEST(clean_efer, CLEAN_CR, set_efer, look_efer)

static void set_dr6(struct vm *vm, bool second)
{
	vm->vmcb->dr6 = 0xffff0ff0 | second;
}

static u64 look_dr6(struct vm *vm)
{
	return result(vm, g_read_dr6, 0);
}
FIELD_TEST(clean_dr6, CLEAN_DR, set_dr6, look_dr6)

static void set_dr7(struct vm *vm, bool second)
{
	vm->vmcb->dr7 = second ? 0x500 : 0x400;
}
FIELD_TEST(clean_dr7, CLEAN_DR, set_dr7, look_dr7)

static void set_gdt(struct vm *vm, bool second)
{
	vm->vmcb->gdtr.base = second ? 0x6000 : 0x5000;
}

static u64 look_gdt(struct vm *vm)
{
	return result(vm, g_sgdt, 0);
}
FIELD_TEST(clean_gdt, CLEAN_DT, set_gdt, look_gdt)

static void set_idt(struct vm *vm, bool second)
{
	vm->vmcb->idtr.base = second ? 0x6000 : 0x5000;
}

static u64 look_idt(struct vm *vm)
{
	return result(vm, g_sidt, 0);
}
FIELD_TEST(clean_idt, CLEAN_DT, set_idt, look_idt)

static void set_ds(struct vm *vm, bool second)
{
	vm->vmcb->ds.selector = second ? 0x28 : 0x10;
}

static u64 look_ds(struct vm *vm)
{
	return result(vm, g_read_ds, 0);
}
FIELD_TEST(clean_ds, CLEAN_SEG, set_ds, look_ds)

static void set_cpl(struct vm *vm, bool second)
{
	u16 dpl = second ? 3 << 5 : 0;

	*entry(vm->cr3, 0x200000, 2) |= PT_US;
	vm->vmcb->cpl = second ? 3 : 0;
	vm->vmcb->cs.attrib = 0xa9b | dpl;
	vm->vmcb->ss.attrib = 0xc93 | dpl;
}

/* Privileged */
static u64 look_cpl(struct vm *vm)
{
	return result(vm, g_read_cr0, 0);
}
FIELD_TEST(clean_cpl, CLEAN_SEG, set_cpl, look_cpl)

static void set_cr2(struct vm *vm, bool second)
{
	vm->vmcb->cr2 = second ? 0x6000 : 0x5000;
}

static u64 look_cr2(struct vm *vm)
{
	return result(vm, g_read_cr2, 0);
}
FIELD_TEST(clean_cr2, CLEAN_CR2, set_cr2, look_cr2)

/* Fields that are read from memory each time, even if they are marked clean */
static void clean_never_cached(struct vm *vm)
{
	struct vmcb *c = vm->vmcb;
	u64 a, b;

	stale(vm, 0);
	c->clean = CLEAN_ALL;
	survives(vm, 0, "all marked clean");
	c->tlb_control = FLUSH_ALL;
	gone(vm, 0, "TLB_CONTROL with all marked clean");
	c->tlb_control = KEEP;

	c->rax = 5;
	a = guest(vm, g_rax, 0, 0);
	c->rax = 6;
	b = guest(vm, g_rax, 0, 0);
	expect(a == 5 && b == 6, "RAX with all marked clean: %lx, then %lx", a, b);
	vm->rflags = 0;
	a = guest(vm, g_flags, 0, 0);
	vm->rflags = RFLAGS_CF;
	b = guest(vm, g_flags, 0, 0);
	expect(!(a & RFLAGS_CF) && (b & RFLAGS_CF), "RFLAGS with all marked clean: %lx, then %lx",
	       a, b);
	vm->rflags = 0;
	/* There is no IDT: the guest does not get to its first instruction, whatever its exit is. */
	c->event_inj = 1u << 31 | 3 << 8 | 13;
	guest(vm, g_nop, 0, 0);
	expect(c->exit_code != EXIT_VMMCALL, "the event was not injected");
	c->event_inj = 0;
	guest_ok(vm, g_nop, 0, 0);
}

static void clean_never_cached_rsp(struct vm *vm)
{
	u64 other = (u64)alloc(PAGE_SIZE), a, b;

	a = guest(vm, g_rsp, 0, 0);
	vm->vmcb->clean = CLEAN_ALL;
	/* Do not use guest(), which sets RSP. */
	vm->vmcb->rip = (u64)g_rsp;
	vm->vmcb->rsp = other;
	asm volatile("clgi; vmrun; stgi"
		     :
		     : "a"(vm->vmcb)
		     : "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
		       "r14", "r15", "cc", "memory");
	b = vm->vmcb->rax;
	expect(a != other && b == other, "RSP with all marked clean: %lx, then %lx", a, b);
}

/* This processor has not run the VMCB, so the bits have no effect. */
static void clean_first_run(struct vm *vm)
{
	map_old(vm, 0);
	vm->vmcb->clean = CLEAN_ALL | 1u << 31;
	expect(load(vm, 0) == old_data(vm, 0), "first run of a VMCB, all marked clean");
}

/* Fields that are cached for one VMCB are not used for another. */
static void clean_other_vmcb(struct vm *vm)
{
	struct vm *b = vm_like(vm, 2);

	vm->vmcb->cr2 = 0x5000;
	expect(look_cr2(vm) == 0x5000, "CR2");
	b->vmcb->cr2 = 0x7000;
	b->vmcb->clean = CLEAN_ALL;
	expect(look_cr2(b) == 0x7000, "CR2 of another VMCB, marked clean");
	vm->vmcb->cr2 = 0x6000;
	vm->vmcb->clean = 1 << CLEAN_CR2;
	expect(look_cr2(vm) == (config.clean ? 0x5000 : 0x6000),
	       "CR2 of the first VMCB, marked clean, after another ran");
}

/* If the guest changes a register, the cached field has the new value. */
static void clean_guest_writes(struct vm *vm)
{
	u64 v;

	vm->vmcb->cr2 = 0x5000;
	guest_ok(vm, g_write_cr2, 0x8000, 0);
	expect(vm->vmcb->cr2 == 0x8000, "CR2 in the VMCB: %lx", vm->vmcb->cr2);
	vm->vmcb->clean = CLEAN_ALL;
	v = look_cr2(vm);
	expect(v == 0x8000, "CR2, written by the guest, marked clean: %lx", v);
	vm->vmcb->clean = 0;
	guest_ok(vm, g_write_cr4, CR4_64 | CR4_DE, 0);
	vm->vmcb->clean = CLEAN_ALL;
	v = look_cr4(vm);
	expect(v == (CR4_64 | CR4_DE), "CR4, written by the guest, marked clean: %lx", v);
	vm->vmcb->cr4 = CR4_64;
	v = look_cr4(vm);
	expect(v == (config.clean ? CR4_64 | CR4_DE : CR4_64),
	       "CR4, written by the guest, then in memory, marked clean: %lx", v);
	vm->vmcb->cr4 = CR4_64;
	vm->vmcb->clean = CLEAN_ALL & ~(1 << CLEAN_CR);
	v = look_cr4(vm);
	expect(v == CR4_64, "CR4 in memory, marked dirty: %lx", v);
}

/* Clean bits that no group uses */
static void clean_unknown_bits(struct vm *vm)
{
	set_cr2(vm, false);
	look_cr2(vm);
	set_cr2(vm, true);
	vm->vmcb->clean = 0xfffff800;
	expect(look_cr2(vm) == 0x6000, "CR2, marked dirty, all unknown bits set");
}

static void clean_counters(struct vm *vm)
{
	u64 hit, reload;

	guest_ok(vm, g_nop, 0, 0);
	hit = counter(C_CLEAN_HIT);
	reload = counter(C_CLEAN_RELOAD);
	guest_ok(vm, g_nop, 0, 0);
	expect(counter(C_CLEAN_HIT) == hit, "clean_hit grew by %ld with none marked clean",
	       counter(C_CLEAN_HIT) - hit);
	expect(counter(C_CLEAN_RELOAD) > reload,
	       "clean_reload did not grow with none marked clean");
	reload = counter(C_CLEAN_RELOAD);
	vm->vmcb->clean = CLEAN_ALL;
	guest_ok(vm, g_nop, 0, 0);
	expect(counter(C_CLEAN_RELOAD) == reload, "clean_reload grew by %ld with all marked clean",
	       counter(C_CLEAN_RELOAD) - reload);
	expect(counter(C_CLEAN_HIT) > hit, "clean_hit did not grow with all marked clean");
	hit = counter(C_CLEAN_HIT);
	vm->vmcb->clean = 1 << CLEAN_CR2;
	guest_ok(vm, g_nop, 0, 0);
	expect(counter(C_CLEAN_HIT) == hit + 1, "clean_hit grew by %ld with one marked clean",
	       counter(C_CLEAN_HIT) - hit);
}

static void set_pause_filter(struct vm *vm, bool second)
{
	vm->vmcb->intercept1 = INTERCEPT_SHUTDOWN | INTERCEPT_PAUSE;
	vm->vmcb->pause_count = second ? 5 : 10;
}

static u64 look_pause_filter(struct vm *vm)
{
	return guest(vm, g_pause, 100, 0);
}
FIELD_TEST(clean_pause_filter, CLEAN_INTERCEPTS, set_pause_filter, look_pause_filter)

static void set_intercept3(struct vm *vm, bool second)
{
	vm->vmcb->intercept3 = second ? INTERCEPT_INVPCID : 0;
}

static u64 look_intercept3(struct vm *vm)
{
	/* Type 4: #GP, if it is not intercepted */
	guest(vm, g_invpcid, 4, (u64)g_invpcid);
	return vm->vmcb->exit_code;
}
FIELD_TEST(clean_intercept3, CLEAN_INTERCEPTS, set_intercept3, look_intercept3)

static void set_enable_invlpgb(struct vm *vm, bool second)
{
	vm->vmcb->np_enable = (vm->vmcb->np_enable & ~ENABLE_INVLPGB) | (second ? ENABLE_INVLPGB : 0);
}

static u64 look_enable_invlpgb(struct vm *vm)
{
	guest(vm, g_tlbsync, 0, 0);
	return vm->vmcb->exit_code;
}
FIELD_TEST(clean_enable_invlpgb, CLEAN_NP, set_enable_invlpgb, look_enable_invlpgb)

static void set_lbr(struct vm *vm, bool second)
{
	vm->vmcb->lbr_ctl = V_LBR;
	vm->vmcb->dbgctl = 0;
	vm->vmcb->br_from = second ? 0x5000 : 0x6000;
}

static u64 look_lbr(struct vm *vm)
{
	return guest(vm, g_rdmsr, 0x1db, 0);
}
FIELD_TEST(clean_lbr, CLEAN_LBR, set_lbr, look_lbr)

/* What #VMEXIT writes is what the processor has; it writes nothing if the record is not virtual. */
static void clean_lbr_saved(struct vm *vm)
{
	u64 v;

	set_lbr(vm, false);
	vm->vmcb->dbgctl = 1;
	guest_ok(vm, g_lbr_jmp, 0, 0);
	vm->vmcb->dbgctl = 0;
	vm->vmcb->br_from = 0x7000;
	vm->vmcb->clean = CLEAN_ALL;
	v = look_lbr(vm);
	expect(v == (config.clean ? (u64)g_lbr_jmp_from : 0x7000), "written by #VMEXIT, then in memory, marked clean: %lx", v);
	set_lbr(vm, false);
	vm->vmcb->clean = 0;
	look_lbr(vm);
	vm->vmcb->lbr_ctl = 0;
	vm->vmcb->br_from = 0x8000;
	vm->vmcb->clean = CLEAN_ALL;
	guest_ok(vm, g_nop, 0, 0);
	vm->vmcb->lbr_ctl = V_LBR;
	v = look_lbr(vm);
	expect(v == (config.clean ? 0x6000 : 0x8000), "not virtual for a while, in memory, marked clean: %lx", v);
	vm->vmcb->clean = 0;
}

void clean_tests(void)
{
	static const struct test tests[] = {
		{ "clean-0-intercepts-1", clean_intercept1, ALL_MODES },
		{ "clean-0-intercepts-2", clean_intercept2, ALL_MODES },
		{ "clean-0-intercepts-cr-write", clean_intercept_cr, ALL_MODES },
		{ "clean-0-intercepts-cr-read", clean_intercept_cr_read, ALL_MODES },
		{ "clean-0-intercepts-dr", clean_intercept_dr, ALL_MODES },
		{ "clean-0-intercepts-exceptions", clean_intercept_exceptions, ALL_MODES },
		{ "clean-0-tsc-offset", clean_tsc_offset, ALL_MODES },
		{ "clean-1-msrpm", clean_msrpm, ALL_MODES },
		{ "clean-1-iopm", clean_iopm, ALL_MODES },
		{ "clean-3-v-tpr", clean_tpr, ALL_MODES },
		{ "clean-4-ncr3", clean_ncr3, NESTED_TABLE },
		{ "clean-5-cr0", clean_cr0, ALL_MODES },
		{ "clean-5-cr3", clean_cr3, ALL_MODES },
		{ "clean-5-cr4", clean_cr4, ALL_MODES },
		{ "clean-5-efer", clean_efer, ALL_MODES },
		{ "clean-6-dr6", clean_dr6, ALL_MODES },
		{ "clean-6-dr7", clean_dr7, ALL_MODES },
		{ "clean-7-gdt", clean_gdt, ALL_MODES },
		{ "clean-7-idt", clean_idt, ALL_MODES },
		{ "clean-8-ds", clean_ds, ALL_MODES },
		{ "clean-8-cpl", clean_cpl, ALL_MODES },
		{ "clean-9-cr2", clean_cr2, ALL_MODES },
		{ "clean-never-cached", clean_never_cached, ALL_MODES },
		{ "clean-never-cached-rsp", clean_never_cached_rsp, ALL_MODES },
		{ "clean-first-run", clean_first_run, ALL_MODES },
		{ "clean-other-vmcb", clean_other_vmcb, ALL_MODES },
		{ "clean-guest-writes", clean_guest_writes, ALL_MODES },
		{ "clean-unknown-bits", clean_unknown_bits, ALL_MODES },
	};
	/* Of features that have a property each */
	static const struct test zen[] = {
		{ "clean-0-pause-filter", clean_pause_filter, ALL_MODES },
		{ "clean-0-intercepts-3", clean_intercept3, ALL_MODES },
		{ "clean-10-lbr", clean_lbr, ALL_MODES },
		{ "clean-10-lbr-saved", clean_lbr_saved, ALL_MODES },
	};
	static const struct test invlpgb[] = {
		{ "clean-4-enable-invlpgb", clean_enable_invlpgb, ALL_MODES },
	};
	/* Without the model, a guest cannot tell which ASID it has. */
	static const struct test model[] = {
		{ "clean-2-asid", clean_asid, ALL_MODES },
		{ "clean-2-asid-flush", clean_asid_flush, ALL_MODES },
	};
	static const struct test counters[] = {
		{ "clean-counters", clean_counters, NPT_OFF },
	};

	run_tests("clean", tests, ARRAY_SIZE(tests));
	run_tests("clean-zen", zen, ARRAY_SIZE(zen));
	run_tests("clean-invlpgb", invlpgb, ARRAY_SIZE(invlpgb));
	if (config.model)
		run_tests("clean", model, ARRAY_SIZE(model));
	if (config.clean)
		run_tests("clean", counters, ARRAY_SIZE(counters));
}
