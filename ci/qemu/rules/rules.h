/* SPDX-License-Identifier: GPL-2.0-only */
/* A hypervisor that deliberately omits flushes, and checks which translations its guests get. */
#ifndef RULES_H
#define RULES_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef _Bool bool;
#define true	1
#define false	0
#define NULL	((void *)0)

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define PAGE_SIZE	4096ul
#define SIZE_2M		(1ul << 21)
#define SIZE_1G		(1ul << 30)

/* Page tables, the guest's and nested */
#define PT_P		(1ul << 0)
#define PT_RW		(1ul << 1)
#define PT_US		(1ul << 2)
#define PT_A		(1ul << 5)
#define PT_D		(1ul << 6)
#define PT_PS		(1ul << 7)
#define PT_G		(1ul << 8)
#define PT_KEY(n)	((u64)(n) << 59)
#define PT_NX		(1ul << 63)
#define PT_ADDR		0x000ffffffffff000ul

#define CR0_PE		(1ul << 0)
#define CR0_MP		(1ul << 1)
#define CR0_ET		(1ul << 4)
#define CR0_WP		(1ul << 16)
#define CR0_NW		(1ul << 29)
#define CR0_CD		(1ul << 30)
#define CR0_PG		(1ul << 31)
#define CR4_DE		(1ul << 3)
#define CR4_PSE		(1ul << 4)
#define CR4_PAE		(1ul << 5)
#define CR4_PGE		(1ul << 7)
#define CR4_LA57	(1ul << 12)
#define CR4_PCIDE	(1ul << 17)
#define CR4_SMEP	(1ul << 20)
#define CR4_SMAP	(1ul << 21)
#define CR4_PKE		(1ul << 22)
#define EFER_SCE	(1ul << 0)
#define EFER_LME	(1ul << 8)
#define EFER_LMA	(1ul << 10)
#define EFER_NXE	(1ul << 11)
#define EFER_SVME	(1ul << 12)
#define RFLAGS_CF	(1ul << 0)
#define RFLAGS_TF	(1ul << 8)
#define RFLAGS_AC	(1ul << 18)

#define MSR_MTRR_PHYSBASE0	0x200
#define MSR_MTRR_DEFTYPE	0x2ff
#define MSR_EFER		0xc0000080
#define MSR_STAR		0xc0000081
#define MSR_VM_HSAVE_PA		0xc0010117
#define MSR_SELECT		0xc0011f00	/* the model's counters */
#define MSR_COUNTER(n)		(0xc0011f01 + (n))

struct gate {
	u16 low, selector;
	u8 ist, type;
	u16 mid;
	u32 high, pad;
};

/* An interrupt gate of the host, or of a guest that has the host's GDT */
static inline struct gate gate(void *handler)
{
	u64 h = (u64)handler;

	return (struct gate){
		.low = h, .mid = h >> 16, .high = h >> 32, .selector = 8, .type = 0x8e,
	};
}

struct vmcb_seg {
	u16 selector, attrib;
	u32 limit;
	u64 base;
} __attribute__((packed));

struct vmcb {
	u16 intercept_cr_read, intercept_cr_write;
	u16 intercept_dr_read, intercept_dr_write;
	u32 intercept_exceptions;
	u32 intercept1, intercept2, intercept3;
	u8 pad1[0x3c - 0x18];
	u16 pause_threshold, pause_count;
	u64 iopm, msrpm, tsc_offset;
	u32 asid;
	u8 tlb_control, pad2[3];
	u32 int_ctl, int_vector;
	u64 int_state;
	u64 exit_code, exit_info1, exit_info2, exit_int_info;
	u64 np_enable;
	u8 pad3[0xa8 - 0x98];
	u64 event_inj, ncr3, lbr_ctl;
	u32 clean, pad4;
	u64 nrip;
	u8 insn_len, insn_bytes[15];
	u8 pad5[0x400 - 0xe0];
	struct vmcb_seg es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	u8 pad6[0x4cb - 0x4a0];
	u8 cpl;
	u32 pad7;
	u64 efer;
	u8 pad8[0x548 - 0x4d8];
	u64 cr4, cr3, cr0, dr7, dr6, rflags, rip;
	u8 pad9[0x5d8 - 0x580];
	u64 rsp;
	u8 pad10[0x5f8 - 0x5e0];
	u64 rax;
	u8 pad11[0x640 - 0x600];
	u64 cr2;
	u8 pad12[0x668 - 0x648];
	u64 pat, dbgctl, br_from, br_to, last_excp_from, last_excp_to;
	u8 pad13[0x1000 - 0x698];
} __attribute__((packed));

/* intercept1 and intercept2 */
#define INTERCEPT_VINTR		(1u << 4)
#define INTERCEPT_CR0_SELECTIVE	(1u << 5)
#define INTERCEPT_CPUID		(1u << 18)
#define INTERCEPT_INTN		(1u << 21)
#define INTERCEPT_PAUSE		(1u << 23)
#define INTERCEPT_HLT		(1u << 24)
#define INTERCEPT_INVLPG	(1u << 25)
#define INTERCEPT_INVLPGA	(1u << 26)
#define INTERCEPT_IOIO		(1u << 27)
#define INTERCEPT_MSR		(1u << 28)
#define INTERCEPT_SHUTDOWN	(1u << 31)
#define INTERCEPT_VMRUN		(1u << 0)
#define INTERCEPT_VMMCALL	(1u << 1)
#define INTERCEPT_VMLOAD	(1u << 2)
#define INTERCEPT_VMSAVE	(1u << 3)

/* intercept3 */
#define INTERCEPT_INVLPGB	(1u << 0)
#define INTERCEPT_INVLPGB_ILLEGAL (1u << 1)
#define INTERCEPT_INVPCID	(1u << 2)
#define INTERCEPT_TLBSYNC	(1u << 4)

/* np_enable */
#define ENABLE_INVLPGB		(1ul << 7)

/* lbr_ctl */
#define V_LBR			(1ul << 0)
#define V_VMLOAD_VMSAVE		(1ul << 1)

#define EXIT_CR_READ(n)		(n)
#define EXIT_CR_WRITE(n)	(0x10 + (n))
#define EXIT_EXCP(n)		(0x40 + (n))
#define EXIT_PF			EXIT_EXCP(14)
#define EXIT_VINTR		0x64
#define EXIT_CR0_SELECTIVE	0x65
#define EXIT_CPUID		0x72
#define EXIT_SWINT		0x75
#define EXIT_PAUSE		0x77
#define EXIT_HLT		0x78
#define EXIT_INVLPG		0x79
#define EXIT_INVLPGA		0x7a
#define EXIT_IOIO		0x7b
#define EXIT_MSR		0x7c
#define EXIT_SHUTDOWN		0x7f
#define EXIT_VMMCALL		0x81
#define EXIT_VMLOAD		0x82
#define EXIT_VMSAVE		0x83
#define EXIT_INVLPGB		0xa0
#define EXIT_INVLPGB_ILLEGAL	0xa1
#define EXIT_INVPCID		0xa2
#define EXIT_TLBSYNC		0xa4
#define EXIT_NPF		0x400
#define EXIT_INVALID		(-1ul)

#define V_IRQ			(1u << 8)
#define V_INTR_PRIO(n)		((u32)(n) << 16)
#define V_INTR_MASKING		(1u << 24)

/* event_inj and exit_int_info */
#define EVENT_INTR		(0ul << 8)
#define EVENT_EXCEPTION		(3ul << 8)
#define EVENT_SOFT		(4ul << 8)
#define EVENT_ERROR_CODE	(1ul << 11)
#define EVENT_VALID		(1ul << 31)

enum tlb_control { KEEP = 0, FLUSH_ALL = 1, FLUSH_ASID = 3, FLUSH_NONGLOBAL = 7 };

/* Clean bits, by group */
enum {
	CLEAN_INTERCEPTS, CLEAN_MAPS, CLEAN_ASID, CLEAN_INTR, CLEAN_NP, CLEAN_CR, CLEAN_DR,
	CLEAN_DT, CLEAN_SEG, CLEAN_CR2, CLEAN_LBR,
};
#define CLEAN_ALL	0x7ff

/* The model's counters, in its order */
enum {
	C_VMRUN, C_VMEXIT, C_HIT, C_FILL, C_REWALK, C_NHIT, C_NFILL, C_NREWALK, C_PSCHIT, C_PSCFILL,
	C_CTL_0, C_CTL_ALL, C_CTL_ASID, C_CTL_NONGLOBAL, C_CTL_RESERVED,
	C_INVLPGA, C_INVLPG, C_MOVCR3, C_CREFER, C_OTHER, C_DROPPED, C_EVICTED,
	C_STALE, C_STALE_RIGHTS, C_AUDIT, C_AUDIT_RIGHTS, C_WINDOW, C_CLEAN_RELOAD, C_CLEAN_HIT,
	C_MOVCR3_NOFLUSH, C_INVPCID, C_INVLPGB, C_TLBSYNC,
	C_MAX,
};

/*
 * Who changes a translation without a flush: the hypervisor in shadow page tables (nested paging
 * off), the guest in its own tables, or the hypervisor in the nested tables.
 */
enum mode {
	NPT_OFF = 1,
	GUEST_TABLE = 2,
	NESTED_TABLE = 4,
	BOTH_NPT = GUEST_TABLE | NESTED_TABLE,
	ALL_MODES = 7,
};

struct vm {
	struct vmcb *vmcb;
	u64 *cr3;		/* the guest's tables */
	u64 *ncr3;		/* the nested tables */
	enum mode mode;
	u64 va, pa;		/* virtual address of its test pages */
	u32 id;
	u64 rflags;		/* RFLAGS at each start */
};

/* guest.S: the code of the guests */
typedef void guest_code(void);
guest_code g_nop, g_load, g_store, g_load_invlpg_load, g_call, g_invlpg, g_invlpga, g_movcr3,
	   g_reload_cr3, g_read_cr0, g_read_cr2, g_read_cr3, g_read_cr4, g_read_cr8, g_read_dr6,
	   g_read_dr7, g_read_ds, g_write_cr2, g_write_cr0, g_write_cr4, g_flip_cr0, g_flip_cr4,
	   g_rdmsr, g_wrmsr, g_rdtsc, g_in, g_cpuid, g_hlt, g_wrpkru, g_rsp, g_rax, g_flags,
	   g_sgdt, g_sidt, g_ud2, g_int3, g_int_40, g_read_dr4, g_write_cr8, g_spin, g_count, g_return,
	   g_invlpgb, g_tlbsync, g_invlpgb_tlbsync, g_wait,
	   g_lmsw, g_trap_flag, g_invpcid, g32_write_cr4, g_vmload, g_vmsave, g_rdtscp, g_pause, g_lbr_record, g_lbr_not_taken, g_lbr_ud2,
	   g_lbr_jmp, g_lbr_jmp_reg, g_lbr_jmp_mem, g_lbr_jnz, g_lbr_jrcxz, g_lbr_loop,
	   g_lbr_call, g_lbr_call_reg, g_lbr_ret, g_lbr_iret, g_lbr_lret,
	   g32_vmload, g32_vmsave, g32_into, g32_sysenter, g32_nop, g32_load, g32_invlpg, g32_reload_cr3,
	   g32_write_cr0, g32_flip_cr4;

/* guest.S: the branches of g_lbr_*, and their targets */
extern char g_lbr_record_from[], g_lbr_record_to[], g_lbr_ud2_from[],
	    g_lbr_jmp_from[], g_lbr_jmp_to[], g_lbr_jmp_reg_from[], g_lbr_jmp_reg_to[],
	    g_lbr_jmp_mem_from[], g_lbr_jmp_mem_to[], g_lbr_jnz_from[], g_lbr_jnz_to[],
	    g_lbr_jrcxz_from[], g_lbr_jrcxz_to[], g_lbr_loop_from[], g_lbr_loop_to[],
	    g_lbr_call_from[], g_lbr_call_to[], g_lbr_call_reg_from[], g_lbr_call_reg_to[],
	    g_lbr_ret_from[], g_lbr_ret_to[], g_lbr_iret_from[], g_lbr_iret_to[],
	    g_lbr_lret_from[], g_lbr_lret_to[];

extern char g_trap_flag_end[];

/* guest.S: handlers that end with the vector in RAX, 16 bytes each */
extern char g_handlers[];
#define GUEST_VECTORS	0x50
extern struct gate guest_idt[GUEST_VECTORS];

/* start.S */
extern char gdt[], gdt_end[];

/* lib.c */
struct config {
	bool model;		/* survives() expects stale entries */
	bool clean;
	u32 oracle, asids;
	u32 sev, sev_min;	/* the last ASID of SEV, and the first one without SEV-ES */
	u32 sev_guests;		/* the security processor's limit */
	bool by_asid;		/* CPUID says FLUSHBYASID */
	bool want_by_asid;
	bool late;		/* INVLPGB reaches the other processor at TLBSYNC */
	u32 invlpgb_count;	/* the maximum */
	const char *run, *test;
};
extern struct config config;

struct test {
	const char *name;
	void (*fn)(struct vm *vm);
	u32 modes;		/* 0: run once, without a guest */
};

void puts(const char *s);
void printf(const char *fmt, ...);
void expect(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void diag(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
bool failed_so_far(void);
void skip(const char *reason);
void finish(int status) __attribute__((noreturn));
void read_cmdline(u32 *multiboot);
void run_tests(const char *group, const struct test *tests, u32 n);
void *alloc(u64 size);
void *memcpy(void *to, const void *from, u64 n);
void *memset(void *p, int c, u64 n);

/* cpu.c */
void cpu_init(void);
void cpu_mask_interrupts(void);
void on_second_cpu(void (*fn)(void));
void restart_second_cpu(void);
void start_on_second_cpu(void (*fn)(void));
void wait_for_second_cpu(void);
#define IPI_VECTOR	0x40
void interrupt_first_cpu(void);
void cpu_enable_interrupt(u32 vector, void *handler);
void cpu_end_of_interrupt(void);
extern volatile u64 interrupts_taken;
void cpu_count_interrupts(u32 vector);
void cpu_take_interrupts(void);
void cpu_handle_exception(u32 vector, void *handler);

/* vm.c */
struct vm *vm_new(enum mode mode, u32 asid);
struct vm *vm_like(struct vm *vm, u32 asid);
void vm_new_window(void);
u64 *entry(u64 *root, u64 addr, int level);
u64 *pte(struct vm *vm, u64 n);
u64 *npte(struct vm *vm, u64 n);
u64 gva(struct vm *vm, u64 n);
u64 old_data(struct vm *vm, u64 n);
u64 new_data(struct vm *vm, u64 n);
u64 *data_page(u64 value);
u64 *data_of(struct vm *vm, u64 n);
void map_old(struct vm *vm, u64 n);
void map_new(struct vm *vm, u64 n);
u64 guest(struct vm *vm, guest_code *code, u64 rdi, u64 rsi);
void guest_ok(struct vm *vm, guest_code *code, u64 rdi, u64 rsi);
void invalid(struct vm *vm);
u64 load(struct vm *vm, u64 n);
void store(struct vm *vm, u64 n, u64 value, u64 exit_code);
void stale(struct vm *vm, u64 n);
void stale_global(struct vm *vm, u64 n);
void flush(struct vm *vm, enum tlb_control how);
void flush_guest(struct vm *vm);
void survives(struct vm *vm, u64 n, const char *what);
void gone(struct vm *vm, u64 n, const char *what);
void gone_for_guest(struct vm *vm, u64 n, const char *what);
void to_32bit(struct vm *vm, u64 cr0, u64 cr4);
void to_64bit(struct vm *vm);
void intercept_msrs(struct vm *vm);
void with_handlers(struct vm *vm);
u64 counter(int n);

#define CR0_64	(CR0_PG | CR0_WP | CR0_ET | CR0_PE)
#define CR4_64	(CR4_PAE | CR4_PGE)
#define EFER_64	(EFER_SVME | EFER_NXE | EFER_LMA | EFER_LME)

/* The groups of tests */
void lookup_tests(void);
void flush_tests(void);
void guest_tests(void);
void page_tests(void);
void mode_tests(void);
void vmrun_tests(void);
void system_tests(void);
void capacity_tests(void);
void counter_tests(void);
void oracle_tests(void);
void clean_tests(void);
void asid_tests(void);
void smp_tests(void);
void reset_tests(void);
void fixes_tests(void);
void zen_tests(void);
void pcid_tests(void);
void invlpgb_tests(void);
void sev_tests(void);

/* invlpgb.c: operands of INVLPGB in RAX, and of EDX and ECX as one number */
#define VALID_VA		(1ul << 0)
#define VALID_PCID		(1ul << 1)
#define VALID_ASID		(1ul << 2)
#define INCLUDE_GLOBAL		(1ul << 3)
#define FINAL_ONLY		(1ul << 4)
#define INCLUDE_NESTED		(1ul << 5)
#define PMD_STRIDE		(1ul << 31)
#define ASID(n)			((u64)(n) << 32)
#define PCID(n)			((u64)(n) << 48)
u64 invlpgb_fault(u64 rax, u64 edx_ecx);
void invlpgb(u64 rax, u64 edx_ecx);

/* x86 */
static inline void outb(u16 port, u8 v)
{
	asm volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void outl(u16 port, u32 v)
{
	asm volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline u32 inl(u16 port)
{
	u32 v;

	asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline u8 inb(u16 port)
{
	u8 v;

	asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline u64 rdmsr(u32 msr)
{
	u32 lo, hi;

	asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr) : "memory");
	return (u64)hi << 32 | lo;
}

static inline void wrmsr(u32 msr, u64 v)
{
	asm volatile("wrmsr" : : "c"(msr), "a"((u32)v), "d"((u32)(v >> 32)) : "memory");
}

struct cpuid {
	u32 a, b, c, d;
};

static inline struct cpuid cpuid(u32 leaf, u32 sub)
{
	struct cpuid r;

	asm volatile("cpuid"
		     : "=a"(r.a), "=b"(r.b), "=c"(r.c), "=d"(r.d)
		     : "a"(leaf), "c"(sub));
	return r;
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;

	asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (u64)hi << 32 | lo;
}

#define read_cr(n) ({								\
	u64 v_;									\
										\
	asm volatile("mov %%cr" #n ", %0" : "=r"(v_) : : "memory");		\
	v_;									\
})
#define write_cr(n, v)	asm volatile("mov %0, %%cr" #n : : "r"((u64)(v)) : "memory")

static inline void invlpg(u64 addr)
{
	asm volatile("invlpg (%0)" : : "r"(addr) : "memory");
}

static inline void invlpga(u64 addr, u32 asid)
{
	asm volatile("invlpga %0, %1" : : "a"(addr), "c"(asid) : "memory");
}

#endif
