// SPDX-License-Identifier: GPL-2.0-only
/* The security processor's rules for ASIDs, and guests with SEV. */
#include "rules.h"

#define PCI_ID			0x14ca1022u
#define PSP_INTEN		0x10690
#define PSP_INTSTS		0x10694
#define PSP_CMDRESP		0x10980
#define PSP_CMDBUF_LO		0x109e0
#define PSP_CMDBUF_HI		0x109e4
#define PSP_FEATURE		0x109fc
#define RESP			(1u << 31)
#define IOC			1u
#define INT_SEV			2u

#define MSR_SYSCFG		0xc0010010
#define MSR_HWCR		0xc0010015
#define MSR_SEV_STATUS		0xc0010131
#define C_BIT			(1ul << 51)
#define NP_SEV			2
#define NP_SEV_ES		4

/* rules.ld: the code of the host and of its guests */
#define CODE			0x200000ul
extern char text_end[];

enum {
	INIT = 0x01, SHUTDOWN = 0x02, PLATFORM_STATUS = 0x04, PEK_GEN = 0x05, DF_FLUSH = 0x0a,
	INIT_EX = 0x0d, DECOMMISSION = 0x20, ACTIVATE = 0x21, DEACTIVATE = 0x22,
	GUEST_STATUS = 0x23, LAUNCH_START = 0x30, LAUNCH_UPDATE_DATA = 0x31,
	LAUNCH_UPDATE_VMSA = 0x32, LAUNCH_MEASURE = 0x33, LAUNCH_FINISH = 0x35,
	SEND_START = 0x40, DBG_DECRYPT = 0x60, DBG_ENCRYPT = 0x61,
};

enum {
	SUCCESS, INVALID_PLATFORM_STATE = 0x01, INVALID_GUEST_STATE = 0x02, INVALID_CONFIG = 0x03,
	INVALID_LEN = 0x04, POLICY_FAILURE = 0x07, INACTIVE = 0x08, INVALID_ADDRESS = 0x09,
	ASID_OWNED = 0x0c, INVALID_ASID = 0x0d, WBINVD_REQUIRED = 0x0e, DFFLUSH_REQUIRED = 0x0f,
	INVALID_GUEST = 0x10, INVALID_COMMAND = 0x11, ACTIVE = 0x12, RESOURCE_LIMIT = 0x17,
	NO_ANSWER = 0x10000,
};

#define POLICY_NODBG		1
#define POLICY_ES		4

enum { LUPDATE = 1, LSECRET, RUNNING };

#define NO_RAM			0xf0000000ul	/* a hole below the firmware */

static volatile u32 *psp;
static u8 *buf;

static u32 pci_read(u32 dev, u32 reg)
{
	outl(0xcf8, 1u << 31 | dev << 11 | reg);
	return inl(0xcfc);
}

static void pci_write(u32 dev, u32 reg, u32 v)
{
	outl(0xcf8, 1u << 31 | dev << 11 | reg);
	outl(0xcfc, v);
}

static bool find_psp(void)
{
	u32 dev;

	if (psp)
		return true;
	for (dev = 0; dev < 32; dev++) {
		if (pci_read(dev, 0) == PCI_ID) {
			pci_write(dev, 4, 6);	/* memory, bus master */
			psp = (u32 *)(u64)(pci_read(dev, 0x18) & ~15u);
			buf = alloc(PAGE_SIZE);
			return true;
		}
	}
	return false;
}

static u32 command_at(u32 cmd, u64 addr)
{
	u32 v;

	psp[PSP_CMDBUF_LO / 4] = addr;
	psp[PSP_CMDBUF_HI / 4] = addr >> 32;
	psp[PSP_CMDRESP / 4] = cmd << 16;
	v = psp[PSP_CMDRESP / 4];
	return v & RESP ? v & 0xffff : NO_ANSWER;
}

static u32 command(u32 cmd)
{
	return command_at(cmd, (u64)buf);
}

static u32 *word(u32 offset)
{
	return (u32 *)(buf + offset);
}

static void answers(u32 cmd, u32 want, const char *what)
{
	u32 got = command(cmd);

	expect(got == want, "%s: command %lx answered %lx, not %lx", what, (u64)cmd, (u64)got,
	       (u64)want);
}

static void wbinvd(void)
{
	asm volatile("wbinvd" : : : "memory");
}

static void wbnoinvd(void)
{
	asm volatile(".byte 0xf3, 0x0f, 0x09" : : : "memory");
}

/* Commands whose buffer is a handle and, for ACTIVATE, an ASID */
static u32 guest_command(u32 cmd, u32 handle)
{
	*word(0) = handle;
	return command(cmd);
}

static u32 activate(u32 handle, u32 asid)
{
	*word(4) = asid;
	return guest_command(ACTIVATE, handle);
}

static u32 launch_policy(u32 policy)
{
	memset(buf, 0, 64);
	*word(4) = policy;
	answers(LAUNCH_START, SUCCESS, "LAUNCH_START");
	return *word(0);
}

static u32 launch(void)
{
	return launch_policy(0);
}

static u32 memory_command(u32 cmd, u32 handle, u64 addr, u32 len)
{
	*(u64 *)word(8) = addr;
	*word(16) = len;
	return guest_command(cmd, handle);
}

static u32 debug_command(u32 cmd, u32 handle, void *src, void *dst, u32 len)
{
	*(u64 *)word(8) = (u64)src;
	*(u64 *)word(16) = (u64)dst;
	*word(24) = len;
	return guest_command(cmd, handle);
}

static u32 state_of(u32 handle)
{
	u32 r = guest_command(GUEST_STATUS, handle);

	expect(r == SUCCESS, "GUEST_STATUS answered %lx", (u64)r);
	return buf[12];
}

static void df_flush(void)
{
	wbinvd();
	answers(DF_FLUSH, SUCCESS, "DF_FLUSH after WBINVD");
}

/* A platform without guests, and without ASIDs that wait for a DF_FLUSH */
static bool start_with(bool es)
{
	if (!find_psp()) {
		expect(false, "there is no security processor");
		return false;
	}
	answers(SHUTDOWN, SUCCESS, "SHUTDOWN");
	memset(buf, 0, 64);
	if (es) {
		*word(0) = 1;
		*(u64 *)word(8) = (u64)alloc(1ul << 20);
		*word(16) = 1u << 20;
	}
	answers(INIT, SUCCESS, "INIT");
	df_flush();
	return true;
}

static bool start(void)
{
	return start_with(false);
}

static void cpu(struct vm *vm)
{
	struct cpuid leaf = cpuid(0x8000001f, 0);

	(void)vm;
	expect((leaf.a & 0x1f) == 2, "EAX is %lx, expected SEV only", (u64)leaf.a);
	expect(leaf.b == 51, "EBX is %lx, expected the C-bit 51", (u64)leaf.b);
	expect(leaf.c == config.sev, "ECX is %ld, expected %ld", (u64)leaf.c, (u64)config.sev);
	expect(leaf.d == config.sev_min, "EDX is %ld, expected %ld", (u64)leaf.d,
	       (u64)config.sev_min);
	expect(rdmsr(MSR_SYSCFG) & (1 << 23), "SYSCFG lacks MEM_ENCRYPT");
	expect(rdmsr(MSR_HWCR) & 1, "HWCR lacks SMMLOCK");
}

static void without(struct vm *vm)
{
	(void)vm;
	expect(!cpuid(0x8000001f, 0).a || cpuid(0x80000000, 0).a < 0x8000001f,
	       "CPUID has SEV, but the machine has not");
	expect(!find_psp(), "there is a security processor");
}

static void mailbox(struct vm *vm)
{
	(void)vm;
	if (!start())
		return;
	expect(psp[PSP_FEATURE / 4] == 1, "features are %lx", (u64)psp[PSP_FEATURE / 4]);
	answers(0x7f, INVALID_COMMAND, "an unknown command");
	answers(SEND_START, INVALID_COMMAND, "a command that is not implemented");
	expect(command_at(PLATFORM_STATUS, NO_RAM) == INVALID_ADDRESS, "a buffer outside memory");
	psp[PSP_INTSTS / 4] = ~0u;
	command(PEK_GEN);
	expect(!psp[PSP_INTSTS / 4], "an interrupt that was not asked for");
	psp[PSP_CMDRESP / 4] = PEK_GEN << 16 | IOC;
	expect(psp[PSP_INTSTS / 4] == INT_SEV, "no interrupt");
	psp[PSP_INTSTS / 4] = INT_SEV;
	expect(!psp[PSP_INTSTS / 4], "the interrupt is not cleared");
}

static void platform(struct vm *vm)
{
	u32 handle;

	(void)vm;
	if (!start())
		return;
	answers(PLATFORM_STATUS, SUCCESS, "PLATFORM_STATUS");
	expect(buf[2] == 1 && !*word(8), "state %ld, %ld guests after INIT", (u64)buf[2],
	       (u64)*word(8));
	answers(INIT, INVALID_PLATFORM_STATE, "a second INIT");
	handle = launch();
	answers(PLATFORM_STATUS, SUCCESS, "PLATFORM_STATUS");
	expect(buf[2] == 2 && *word(8) == 1, "state %ld, %ld guests after LAUNCH_START",
	       (u64)buf[2], (u64)*word(8));
	answers(SHUTDOWN, SUCCESS, "SHUTDOWN");
	answers(PLATFORM_STATUS, SUCCESS, "PLATFORM_STATUS");
	expect(!buf[2] && !*word(8), "state %ld, %ld guests after SHUTDOWN", (u64)buf[2],
	       (u64)*word(8));
	answers(DF_FLUSH, INVALID_PLATFORM_STATE, "DF_FLUSH before INIT");
	memset(buf, 0, 64);
	answers(LAUNCH_START, INVALID_PLATFORM_STATE, "LAUNCH_START before INIT");
	expect(guest_command(DECOMMISSION, handle) == INVALID_PLATFORM_STATE,
	       "DECOMMISSION before INIT");
	memset(buf, 0, 64);
	answers(INIT, SUCCESS, "INIT");
	expect(guest_command(DECOMMISSION, handle) == INVALID_GUEST,
	       "a guest has survived SHUTDOWN");
	/* INIT leaves all ASIDs in need of a flush. */
	expect(activate(launch(), config.sev_min) == DFFLUSH_REQUIRED, "ACTIVATE after INIT");
	answers(DF_FLUSH, WBINVD_REQUIRED, "DF_FLUSH after INIT");
}

static void init_es(struct vm *vm)
{
	u64 tmr = (u64)alloc(1ul << 20);

	(void)vm;
	if (!start())
		return;
	memset(buf, 0, 64);
	*word(4) = POLICY_ES;
	answers(LAUNCH_START, INVALID_CONFIG, "SEV-ES without INIT for it");
	answers(SHUTDOWN, SUCCESS, "SHUTDOWN");
	memset(buf, 0, 64);
	*word(0) = 1;
	*(u64 *)word(8) = tmr + PAGE_SIZE;
	*word(16) = 1u << 20;
	answers(INIT, INVALID_ADDRESS, "a TMR that is not aligned");
	*(u64 *)word(8) = NO_RAM;
	answers(INIT, INVALID_ADDRESS, "a TMR outside memory");
	*(u64 *)word(8) = tmr;
	*word(16) = (1u << 20) - PAGE_SIZE;
	answers(INIT, INVALID_LEN, "a TMR that is too small");
	*word(16) = 1u << 20;
	answers(INIT, SUCCESS, "INIT");
	df_flush();
	launch_policy(POLICY_ES);
	answers(SHUTDOWN, SUCCESS, "SHUTDOWN");
	memset(buf, 0, 64);
	*word(0) = 8;
	answers(INIT_EX, INVALID_LEN, "INIT_EX with a wrong length");
}

/* Each kind of guest has its range. */
static void asid_range(struct vm *vm)
{
	u32 sev, es;

	(void)vm;
	if (!start_with(true))
		return;
	sev = launch();
	es = launch_policy(POLICY_ES);
	expect(activate(sev, 0) == INVALID_ASID, "ASID 0");
	expect(activate(sev, config.sev + 1) == INVALID_ASID, "the ASID after the last one");
	expect(activate(sev, config.sev_min - 1) == INVALID_ASID, "SEV with an ASID of SEV-ES");
	expect(activate(es, config.sev_min) == INVALID_ASID, "SEV-ES with an ASID of SEV");
	expect(activate(es, 0) == INVALID_ASID, "SEV-ES, ASID 0");
	expect(activate(es, 1) == SUCCESS, "SEV-ES, first ASID");
	expect(activate(sev, config.sev_min) == SUCCESS, "SEV, first ASID");
	expect(activate(launch(), config.sev) == SUCCESS, "SEV, last ASID");
	expect(activate(launch_policy(POLICY_ES), config.sev_min - 1) == SUCCESS,
	       "SEV-ES, last ASID");
}

static void asid_owned(struct vm *vm)
{
	u32 a, b;

	(void)vm;
	if (!start())
		return;
	a = launch();
	b = launch();
	expect(activate(a, config.sev_min) == SUCCESS, "ACTIVATE");
	expect(activate(b, config.sev_min) == ASID_OWNED, "two guests with one ASID");
	expect(activate(a, config.sev_min + 1) == ACTIVE, "a guest with two ASIDs");
	expect(activate(b, config.sev_min + 1) == SUCCESS, "another ASID");
}

/* The rule that a hypervisor breaks if it reuses an ASID too early */
static void asid_reuse(struct vm *vm)
{
	u32 a, b, asid = config.sev_min;

	(void)vm;
	if (!start())
		return;
	a = launch();
	b = launch();
	expect(activate(a, asid) == SUCCESS, "ACTIVATE");
	expect(guest_command(DEACTIVATE, a) == SUCCESS, "DEACTIVATE");
	expect(activate(b, asid) == DFFLUSH_REQUIRED, "an ASID that was not flushed");
	wbinvd();
	expect(activate(b, asid) == DFFLUSH_REQUIRED, "WBINVD alone");
	expect(activate(b, asid + 1) == SUCCESS, "another ASID");
	answers(DF_FLUSH, SUCCESS, "DF_FLUSH");
	expect(activate(a, asid) == SUCCESS, "ACTIVATE after DF_FLUSH");
}

static void df_flush_wbinvd(struct vm *vm)
{
	u32 a, b;

	(void)vm;
	if (!start())
		return;
	answers(DF_FLUSH, SUCCESS, "DF_FLUSH without DEACTIVATE");
	a = launch();
	b = launch();
	expect(activate(a, config.sev_min) == SUCCESS, "ACTIVATE");
	expect(activate(b, config.sev_min + 1) == SUCCESS, "ACTIVATE");
	wbinvd();
	guest_command(DEACTIVATE, a);
	answers(DF_FLUSH, WBINVD_REQUIRED, "WBINVD before DEACTIVATE");
	if (cpuid(0x80000008, 0).b & (1 << 9)) {
		wbnoinvd();
		answers(DF_FLUSH, WBINVD_REQUIRED, "WBNOINVD");
	}
	wbinvd();
	guest_command(DEACTIVATE, b);
	answers(DF_FLUSH, WBINVD_REQUIRED, "a DEACTIVATE between WBINVD and DF_FLUSH");
	expect(activate(a, config.sev_min) == DFFLUSH_REQUIRED, "after a DF_FLUSH that failed");
	df_flush();
	expect(activate(a, config.sev_min) == SUCCESS, "ACTIVATE after DF_FLUSH");
}

static void handles(struct vm *vm)
{
	static const u32 commands[] = {
		DECOMMISSION, ACTIVATE, DEACTIVATE, GUEST_STATUS, LAUNCH_UPDATE_DATA,
		LAUNCH_UPDATE_VMSA, LAUNCH_MEASURE, LAUNCH_FINISH, DBG_DECRYPT, DBG_ENCRYPT,
	};
	u32 a, b, i;

	(void)vm;
	if (!start())
		return;
	a = launch();
	expect(guest_command(DEACTIVATE, a) == INACTIVE, "DEACTIVATE before ACTIVATE");
	expect(activate(a, config.sev_min) == SUCCESS, "ACTIVATE");
	expect(guest_command(DECOMMISSION, a) == ACTIVE, "DECOMMISSION before DEACTIVATE");
	expect(guest_command(DEACTIVATE, a) == SUCCESS, "DEACTIVATE");
	expect(guest_command(DEACTIVATE, a) == INACTIVE, "a second DEACTIVATE");
	expect(guest_command(DECOMMISSION, a) == SUCCESS, "DECOMMISSION");
	b = launch();
	expect(a != b, "a handle is used again");
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		expect(guest_command(commands[i], a) == INVALID_GUEST, "command %lx, old handle",
		       (u64)commands[i]);
		expect(guest_command(commands[i], 0) == INVALID_GUEST, "command %lx, handle 0",
		       (u64)commands[i]);
	}
	memset(buf, 0, 64);
	*word(0) = a;
	answers(LAUNCH_START, INVALID_GUEST, "the key of a guest that is gone");
}

static void guest_limit(struct vm *vm)
{
	u32 i, a = 0;

	(void)vm;
	if (!start())
		return;
	for (i = 0; i < config.sev_guests; i++)
		a = launch();
	memset(buf, 0, 64);
	answers(LAUNCH_START, RESOURCE_LIMIT, "one guest too many");
	expect(guest_command(DECOMMISSION, a) == SUCCESS, "DECOMMISSION");
	launch();
}

static void states(struct vm *vm)
{
	u64 page = (u64)alloc(PAGE_SIZE), out = (u64)alloc(PAGE_SIZE);
	u32 a;

	(void)vm;
	if (!start())
		return;
	memset(buf, 0, 64);
	*word(4) = 2 << 16;
	answers(LAUNCH_START, POLICY_FAILURE, "a policy that wants a newer API");
	a = launch();
	expect(state_of(a) == LUPDATE, "state after LAUNCH_START");
	expect(memory_command(LAUNCH_UPDATE_DATA, a, page, 16) == INACTIVE, "without an ASID");
	expect(activate(a, config.sev_min) == SUCCESS, "ACTIVATE");
	expect(memory_command(LAUNCH_UPDATE_DATA, a, page, 16) == SUCCESS, "LAUNCH_UPDATE_DATA");
	expect(memory_command(LAUNCH_UPDATE_DATA, a, page, 0) == INVALID_LEN, "length 0");
	expect(memory_command(LAUNCH_UPDATE_DATA, a, page, 24) == INVALID_LEN, "length 24");
	expect(memory_command(LAUNCH_UPDATE_DATA, a, page + 8, 16) == INVALID_ADDRESS,
	       "an address that is not aligned");
	expect(memory_command(LAUNCH_UPDATE_DATA, a, NO_RAM, 16) == INVALID_ADDRESS,
	       "an address outside memory");
	expect(memory_command(LAUNCH_UPDATE_VMSA, a, page, 4096) == POLICY_FAILURE,
	       "LAUNCH_UPDATE_VMSA without SEV-ES");
	expect(guest_command(LAUNCH_FINISH, a) == INVALID_GUEST_STATE,
	       "LAUNCH_FINISH before LAUNCH_MEASURE");
	expect(memory_command(LAUNCH_MEASURE, a, out, 47) == INVALID_LEN && *word(16) == 48,
	       "LAUNCH_MEASURE with a buffer that is too small: wants %ld bytes", (u64)*word(16));
	expect(memory_command(LAUNCH_MEASURE, a, NO_RAM, 48) == INVALID_ADDRESS,
	       "LAUNCH_MEASURE outside memory");
	expect(state_of(a) == LUPDATE, "state after failures");
	expect(memory_command(LAUNCH_MEASURE, a, out, 64) == SUCCESS, "LAUNCH_MEASURE");
	expect(state_of(a) == LSECRET, "state after LAUNCH_MEASURE");
	expect(memory_command(LAUNCH_MEASURE, a, out, 64) == INVALID_GUEST_STATE,
	       "LAUNCH_MEASURE, twice");
	expect(memory_command(LAUNCH_UPDATE_DATA, a, page, 16) == INVALID_GUEST_STATE,
	       "LAUNCH_UPDATE_DATA after LAUNCH_MEASURE");
	expect(guest_command(LAUNCH_FINISH, a) == SUCCESS, "LAUNCH_FINISH");
	expect(state_of(a) == RUNNING, "state after LAUNCH_FINISH");
	expect(guest_command(LAUNCH_FINISH, a) == INVALID_GUEST_STATE, "LAUNCH_FINISH, twice");
}

static void debug(struct vm *vm)
{
	u64 *page = data_page(0x5ec5e7), *out = alloc(PAGE_SIZE);
	u32 a, b;

	(void)vm;
	if (!start())
		return;
	a = launch();
	b = launch_policy(POLICY_NODBG);
	expect(debug_command(DBG_DECRYPT, a, page, out, 16) == INACTIVE, "without an ASID");
	activate(a, config.sev_min);
	activate(b, config.sev_min + 1);
	expect(debug_command(DBG_DECRYPT, b, page, out, 16) == POLICY_FAILURE, "NODBG, decrypt");
	expect(debug_command(DBG_ENCRYPT, b, page, out, 16) == POLICY_FAILURE, "NODBG, encrypt");
	expect(!*out, "a command that failed has written");
	expect(debug_command(DBG_DECRYPT, a, page, out, 8) == INVALID_LEN, "length 8");
	expect(debug_command(DBG_DECRYPT, a, page, (u8 *)out + 8, 16) == INVALID_ADDRESS,
	       "a destination that is not aligned");
	expect(debug_command(DBG_DECRYPT, a, (void *)NO_RAM, out, 16) == INVALID_ADDRESS,
	       "a source outside memory");
	expect(debug_command(DBG_DECRYPT, a, page, out, 16) == SUCCESS && *out == *page,
	       "DBG_DECRYPT: %lx", *out);
	*out = 7;
	expect(debug_command(DBG_ENCRYPT, a, out, page, 16) == SUCCESS && *page == 7,
	       "DBG_ENCRYPT: %lx", *page);
}

/* A machine on which the second ACTIVATE and the third DF_FLUSH fail on purpose */
static void fail(struct vm *vm)
{
	u32 a, b, asid = config.sev_min;

	(void)vm;
	if (!start())
		return;
	a = launch();
	b = launch();
	expect(activate(a, asid) == SUCCESS, "the first ACTIVATE");
	expect(activate(b, asid + 1) == ASID_OWNED, "the second ACTIVATE");
	expect(activate(b, asid + 1) == SUCCESS, "the third ACTIVATE");
	df_flush();
	wbinvd();
	answers(DF_FLUSH, NO_ANSWER, "the third DF_FLUSH");
	answers(DF_FLUSH, SUCCESS, "the fourth DF_FLUSH");
}

/* Guests.  They have code of their own, because fetches are private. */
static struct vm *sev_vm(u32 asid)
{
	struct vm *vm = vm_new(NESTED_TABLE, asid);
	u64 copy = (u64)alloc(SIZE_2M);

	memcpy((void *)copy, (void *)CODE, (u64)text_end - CODE);
	*entry(vm->ncr3, CODE, 2) = copy | PT_P | PT_RW | PT_US | PT_PS;
	vm->vmcb->np_enable |= NP_SEV;
	/* The tests use the same ASIDs, with other code at the same address. */
	flush(vm, FLUSH_ASID);
	return vm;
}

/* Give it a key. */
static u32 with_key(struct vm *vm)
{
	u32 a = launch();

	expect(activate(a, vm->vmcb->asid) == SUCCESS, "ACTIVATE");
	return a;
}

static void vmrun_asid(struct vm *vm)
{
	vm = sev_vm(config.sev_min);
	guest_ok(vm, g_nop, 0, 0);
	vm->vmcb->asid = config.sev;
	guest_ok(vm, g_nop, 0, 0);
	vm->vmcb->asid = config.sev + 1;
	invalid(vm);
	vm->vmcb->asid = config.sev_min - 1;
	invalid(vm);
	vm->vmcb->asid = config.sev_min;
	vm->vmcb->np_enable = 1 | NP_SEV | NP_SEV_ES;
	invalid(vm);
	vm->vmcb->np_enable = 1 | NP_SEV_ES;
	invalid(vm);
	vm->vmcb->np_enable = NP_SEV;
	invalid(vm);
	vm->vmcb->np_enable = 1;
	vm->vmcb->asid = config.sev + 1;
	guest_ok(vm, g_nop, 0, 0);
}

/* The C-bit is not a part of addresses. */
static void c_bit(struct vm *vm)
{
	struct vm *normal = vm;
	u64 level;

	vm = sev_vm(config.sev_min);
	map_old(vm, 0);
	*pte(vm, 0) |= C_BIT;
	expect(load(vm, 0) == old_data(vm, 0), "C-bit in the PTE");
	for (level = 2; level <= 4; level++) {
		*entry(vm->cr3, gva(vm, 0), level) |= C_BIT;
		flush(vm, FLUSH_ASID);
		expect(load(vm, 0) == old_data(vm, 0), "C-bit at level %ld", level);
		*entry(vm->cr3, gva(vm, 0), level) &= ~C_BIT;
	}
	vm->vmcb->cr3 |= C_BIT;
	flush(vm, FLUSH_ASID);
	expect(load(vm, 0) == old_data(vm, 0), "C-bit in CR3 of the VMCB");
	expect(guest(vm, g_read_cr3, 0, 0) == vm->vmcb->cr3 && (vm->vmcb->cr3 & C_BIT),
	       "CR3 has lost the C-bit");
	vm->vmcb->cr3 = (u64)vm->cr3;
	guest_ok(vm, g_movcr3, (u64)vm->cr3 | C_BIT, 0);
	expect(vm->vmcb->cr3 == ((u64)vm->cr3 | C_BIT), "MOV to CR3: %lx", vm->vmcb->cr3);
	expect(load(vm, 0) == old_data(vm, 0), "C-bit in CR3");
	*entry(vm->cr3, CODE, 2) |= C_BIT;
	flush(vm, FLUSH_ASID);
	guest_ok(vm, g_nop, 0, 0);

	/* Bit 51 is reserved for others: the CPU has 40 bits. */
	map_old(normal, 0);
	*pte(normal, 0) |= C_BIT;
	guest(normal, g_load, gva(normal, 0), 0);
	expect(normal->vmcb->exit_code == EXIT_PF && (normal->vmcb->exit_info1 & 8),
	       "without SEV: exit code %lx, error code %lx", normal->vmcb->exit_code,
	       normal->vmcb->exit_info1);
	normal->vmcb->cr3 |= C_BIT;
	invalid(normal);
}

static void sev_status(struct vm *vm)
{
	struct vm *normal = vm;
	u64 v;

	vm = sev_vm(config.sev_min);
	intercept_msrs(vm);
	v = guest(vm, g_rdmsr, MSR_SEV_STATUS, 0);
	expect(vm->vmcb->exit_code == EXIT_VMMCALL, "exit code %lx", vm->vmcb->exit_code);
	expect(v == 1, "SEV_STATUS is %lx", v);
	guest(vm, g_rdmsr, MSR_EFER, 0);
	expect(vm->vmcb->exit_code == EXIT_MSR, "another MSR: exit code %lx", vm->vmcb->exit_code);
	intercept_msrs(normal);
	guest(normal, g_rdmsr, MSR_SEV_STATUS, 0);
	expect(normal->vmcb->exit_code == EXIT_MSR, "without SEV: exit code %lx",
	       normal->vmcb->exit_code);
	expect(!rdmsr(MSR_SEV_STATUS), "the host's SEV_STATUS");
}

static void map_private(struct vm *vm, u64 n, u64 *page)
{
	*pte(vm, n) = (vm->pa + n * PAGE_SIZE) | PT_P | PT_RW | C_BIT;
	*npte(vm, n) = (u64)page | PT_P | PT_RW | PT_US;
}

static void reports(struct vm *vm, u64 want, const char *what)
{
	u64 before = counter(C_AUDIT);

	guest_ok(vm, g_nop, 0, 0);
	expect(counter(C_AUDIT) - before == want, "%s: %ld reports, not %ld", what,
	       counter(C_AUDIT) - before, want);
}

static void oracle_owner(struct vm *vm)
{
	struct vm *a, *b;
	u64 *page = alloc(PAGE_SIZE);
	u32 handle;

	(void)vm;
	if (!start())
		return;
	a = sev_vm(config.sev_min);
	b = sev_vm(config.sev_min + 1);
	handle = with_key(a);
	with_key(b);
	map_private(a, 0, page);
	map_private(b, 0, page);
	load(a, 0);
	reports(a, 0, "its own page");
	*pte(b, 0) &= ~C_BIT;
	load(b, 0);
	reports(a, 0, "a shared access by another guest");
	*pte(b, 0) |= C_BIT;
	flush(b, FLUSH_ASID);
	load(b, 0);
	reports(b, 0, "the guest that has taken the page");
	reports(a, 1, "the guest that has lost the page");
	reports(a, 0, "the guest that has lost the page, once more");
	/* What the TLB has does not make it a's page, but a's use does. */
	load(a, 0);
	reports(b, 1, "the guest that has lost the page in turn");
	load(b, 0);
	guest_command(DEACTIVATE, handle);
	df_flush();
	expect(activate(handle, a->vmcb->asid) == SUCCESS, "ACTIVATE");
	reports(a, 0, "a guest that has ended");
}

/* A fetch and a walk of the page tables are private without a C-bit. */
static void oracle_implicit(struct vm *vm)
{
	struct vm *a, *b;

	(void)vm;
	if (!start())
		return;
	a = sev_vm(config.sev_min);
	b = sev_vm(config.sev_min + 1);
	with_key(a);
	with_key(b);
	reports(a, 0, "first");
	*entry(b->ncr3, CODE, 2) = *entry(a->ncr3, CODE, 2);
	flush(b, FLUSH_ASID);
	reports(a, 1, "its code was fetched");
	a = sev_vm(config.sev_min);
	b = sev_vm(config.sev_min + 1);
	flush(a, FLUSH_ASID);
	flush(b, FLUSH_ASID);
	b->vmcb->cr3 = a->vmcb->cr3;
	flush(b, FLUSH_ASID);
	reports(a, 1, "its tables were read");
}

/* A guest that runs with another's ASID */
static void oracle_wrong_asid(struct vm *vm)
{
	struct vm *a, *b;

	(void)vm;
	if (!start())
		return;
	a = sev_vm(config.sev_min);
	b = sev_vm(config.sev_min + 1);
	with_key(a);
	with_key(b);
	reports(a, 0, "first");
	a->vmcb->asid = b->vmcb->asid;
	flush(a, FLUSH_ASID);
	a->vmcb->asid = config.sev_min;
	reports(a, 1, "it ran with another guest's ASID");
	/* With an ASID that no guest has */
	a->vmcb->asid = config.sev;
	flush(a, FLUSH_ASID);
	a->vmcb->asid = config.sev_min;
	reports(a, 1, "it ran with an ASID that no guest has");
}

/* LAUNCH_UPDATE_DATA takes the page, too. */
static void oracle_update(struct vm *vm)
{
	u64 *page = alloc(PAGE_SIZE);
	struct vm *a, *b;
	u32 handle;

	(void)vm;
	if (!start())
		return;
	a = sev_vm(config.sev_min);
	b = sev_vm(config.sev_min + 1);
	with_key(a);
	handle = with_key(b);
	map_private(a, 0, page);
	load(a, 0);
	reports(a, 0, "its own page");
	expect(memory_command(LAUNCH_UPDATE_DATA, handle, (u64)page, 16) == SUCCESS,
	       "LAUNCH_UPDATE_DATA");
	reports(a, 1, "the page was made another guest's");
}

static void df_flush_smp(struct vm *vm)
{
	u32 a;

	(void)vm;
	if (!start())
		return;
	a = launch();
	activate(a, config.sev_min);
	guest_command(DEACTIVATE, a);
	df_flush();		/* the second processor waits for SIPI */
	on_second_cpu(wbinvd);
	expect(activate(a, config.sev_min) == SUCCESS, "ACTIVATE");
	guest_command(DEACTIVATE, a);
	wbinvd();
	answers(DF_FLUSH, WBINVD_REQUIRED, "WBINVD on the first processor only");
	on_second_cpu(wbinvd);
	answers(DF_FLUSH, SUCCESS, "WBINVD on both processors");
	activate(a, config.sev_min);
	guest_command(DEACTIVATE, a);
	on_second_cpu(wbinvd);
	answers(DF_FLUSH, WBINVD_REQUIRED, "WBINVD on the second processor only");
}

void sev_tests(void)
{
	static const struct test tests[] = {
		{ "sev-cpu", cpu, 0 },
		{ "sev-mailbox", mailbox, 0 },
		{ "sev-platform", platform, 0 },
		{ "sev-init-es", init_es, 0 },
		{ "sev-asid-range", asid_range, 0 },
		{ "sev-asid-owned", asid_owned, 0 },
		{ "sev-asid-reuse", asid_reuse, 0 },
		{ "sev-df-flush-wbinvd", df_flush_wbinvd, 0 },
		{ "sev-handles", handles, 0 },
		{ "sev-guest-limit", guest_limit, 0 },
		{ "sev-states", states, 0 },
		{ "sev-debug", debug, 0 },
		{ "sev-vmrun-asid", vmrun_asid, 0 },
		{ "sev-c-bit", c_bit, NESTED_TABLE },
		{ "sev-status", sev_status, NESTED_TABLE },
		{ "sev-oracle-owner", oracle_owner, 0 },
		{ "sev-oracle-implicit", oracle_implicit, 0 },
		{ "sev-oracle-wrong-asid", oracle_wrong_asid, 0 },
		{ "sev-oracle-update", oracle_update, 0 },
	};
	static const struct test smp[] = {
		{ "sev-df-flush-smp", df_flush_smp, 0 },
	};
	static const struct test failing[] = {
		{ "sev-fail", fail, 0 },
	};
	static const struct test none[] = {
		{ "sev-off", without, 0 },
	};

	run_tests("sev", tests, ARRAY_SIZE(tests));
	run_tests("sev-smp", smp, ARRAY_SIZE(smp));
	run_tests("sev-fail", failing, ARRAY_SIZE(failing));
	run_tests("no-sev", none, ARRAY_SIZE(none));
}
