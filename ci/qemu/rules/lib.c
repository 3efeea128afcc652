// SPDX-License-Identifier: GPL-2.0-only
/* TAP to the debug console, the command line, memory. */
#include "rules.h"

#define DEBUGCON	0xe9
#define DEBUG_EXIT	0xf4

/* All memory above this address is free.  Pages are never freed, so that tests share no tables. */
#define POOL		(64ul << 20)

struct config config;

static u64 pool = POOL;
static u64 count;
static bool failed;
static const char *skipped;
static char cmdline[1024];

static void putchar(char c)
{
	outb(DEBUGCON, c);
}

void puts(const char *s)
{
	while (*s)
		putchar(*s++);
}

static void put_number(u64 v, u64 base)
{
	char digits[24];
	int n = 0;

	do {
		digits[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	while (n--)
		putchar(digits[n]);
}

/* %s, %ld and %lx only */
static void vprintf(const char *fmt, __builtin_va_list args)
{
	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			putchar(*fmt);
			continue;
		}
		if (*++fmt == 's') {
			puts(__builtin_va_arg(args, const char *));
			continue;
		}
		fmt++;
		if (*fmt == 'x')
			puts("0x");
		put_number(__builtin_va_arg(args, u64), *fmt == 'x' ? 16 : 10);
	}
}

void printf(const char *fmt, ...)
{
	__builtin_va_list args;

	__builtin_va_start(args, fmt);
	vprintf(fmt, args);
	__builtin_va_end(args);
}

void diag(const char *fmt, ...)
{
	__builtin_va_list args;

	__builtin_va_start(args, fmt);
	puts("#   ");
	vprintf(fmt, args);
	puts("\n");
	__builtin_va_end(args);
}

/* Report the first failure of a test only; later ones follow from it. */
void expect(bool ok, const char *fmt, ...)
{
	__builtin_va_list args;

	if (ok || failed)
		return;
	failed = true;
	__builtin_va_start(args, fmt);
	puts("#   ");
	vprintf(fmt, args);
	puts("\n");
	__builtin_va_end(args);
}

bool failed_so_far(void)
{
	return failed;
}

void skip(const char *reason)
{
	skipped = reason;
}

void finish(int status)
{
	outl(DEBUG_EXIT, status);
	for (;;)
		asm volatile("cli; hlt");
}

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* Return whether the command line selects this test, by its name or the part of it before the slash. */
static bool asked_for(const char *name)
{
	const char *t = config.test;

	if (!t)
		return true;
	while (*t && *t == *name)
		t++, name++;
	return !*t && (!*name || *name == '/');
}

static void run_test(const struct test *t, enum mode mode)
{
	static const char *const suffix[] = {
		[NPT_OFF] = "/npt-off",
		[GUEST_TABLE] = "/guest-table",
		[NESTED_TABLE] = "/nested-table",
	};
	const char *in = mode ? suffix[mode] : "";
	struct vm *vm = NULL;

	if (!asked_for(t->name))
		return;
	failed = false;
	skipped = NULL;
	vm_new_window();
	if (mode)
		vm = vm_new(mode, 1);
	t->fn(vm);
	printf("%s %ld - %s%s", failed ? "not ok" : "ok", ++count, t->name, in);
	if (skipped && !failed)
		printf(" # SKIP %s", skipped);
	puts("\n");
}

static bool asked_for_group(const char *group)
{
	const char *r = config.run, *g;

	for (;;) {
		for (g = group; *g && *g == *r; g++)
			r++;
		if (!*g && (!*r || *r == ','))
			return true;
		while (*r && *r != ',')
			r++;
		if (!*r++)
			return false;
	}
}

/* Run all tests of a group, if the command line selects it. */
void run_tests(const char *group, const struct test *tests, u32 n)
{
	enum mode mode;
	u32 i;

	if (!asked_for_group(group))
		return;
	for (i = 0; i < n; i++) {
		if (!tests[i].modes)
			run_test(&tests[i], 0);
		for (mode = NPT_OFF; mode <= NESTED_TABLE; mode <<= 1)
			if (tests[i].modes & mode)
				run_test(&tests[i], mode);
	}
}

static const char *value_of(const char *word, const char *key)
{
	while (*key && *word == *key)
		word++, key++;
	return *key || *word != '=' ? NULL : word + 1;
}

static u32 number(const char *s)
{
	u32 n = 0;

	while (*s >= '0' && *s <= '9')
		n = n * 10 + *s++ - '0';
	return n;
}

/* model=on clean=on flushbyasid=on late=on count=N oracle=N asids=N sev=N sevmin=N guests=N run=GROUP,... test=NAME */
void read_cmdline(u32 *multiboot)
{
	const char *v;
	char *s, *word;

	config.run = "base";
	memcpy(cmdline, (void *)(u64)multiboot[4], sizeof(cmdline) - 1);
	for (s = cmdline; *s;) {
		while (*s == ' ')
			*s++ = 0;
		word = s;
		while (*s && *s != ' ')
			s++;
		if (*s)
			*s++ = 0;
		if ((v = value_of(word, "model")))
			config.model = same(v, "on");
		else if ((v = value_of(word, "clean")))
			config.clean = same(v, "on");
		else if ((v = value_of(word, "flushbyasid")))
			config.want_by_asid = same(v, "on");
		else if ((v = value_of(word, "late")))
			config.late = same(v, "on");
		else if ((v = value_of(word, "count")))
			config.invlpgb_count = number(v);
		else if ((v = value_of(word, "oracle")))
			config.oracle = number(v);
		else if ((v = value_of(word, "asids")))
			config.asids = number(v);
		else if ((v = value_of(word, "sev")))
			config.sev = number(v);
		else if ((v = value_of(word, "sevmin")))
			config.sev_min = number(v);
		else if ((v = value_of(word, "guests")))
			config.sev_guests = number(v);
		else if ((v = value_of(word, "run")))
			config.run = v;
		else if ((v = value_of(word, "test")))
			config.test = v;
	}
}

/* Zeroed pages, aligned to SIZE */
void *alloc(u64 size)
{
	void *p;

	pool = (pool + size - 1) & -size;
	p = (void *)pool;
	pool += size;
	/* Large pages are not zeroed, which would take too long; tests write only the parts that they use. */
	if (size == PAGE_SIZE)
		memset(p, 0, size);
	return p;
}

void *memcpy(void *to, const void *from, u64 n)
{
	void *p = to;

	asm volatile("rep movsb" : "+D"(p), "+S"(from), "+c"(n) : : "memory");
	return to;
}

void *memset(void *to, int c, u64 n)
{
	void *p = to;

	asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(c) : "memory");
	return to;
}

void main(u32 *multiboot)
{
	struct cpuid svm = cpuid(0x8000000a, 0);

	read_cmdline(multiboot);
	cpu_mask_interrupts();
	cpu_init();
	puts("TAP version 13\n");
	if (!(cpuid(0x80000001, 0).c & 4) || !(svm.d & 1)) {
		puts("Bail out! no SVM with nested paging\n");
		finish(1);
	}
	config.by_asid = svm.d & (1 << 6);

	lookup_tests();
	flush_tests();
	guest_tests();
	page_tests();
	mode_tests();
	vmrun_tests();
	system_tests();
	capacity_tests();
	counter_tests();
	oracle_tests();
	clean_tests();
	asid_tests();
	smp_tests();
	reset_tests();
	fixes_tests();
	zen_tests();
	pcid_tests();
	invlpgb_tests();
	sev_tests();
	printf("1..%ld\n", count);
	finish(0);
}
