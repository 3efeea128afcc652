// SPDX-License-Identifier: GPL-2.0-only
/*
 * run-tests FILE: run KVM selftests and print TAP.  Exit status 0: all tests ran.
 *
 * A line of FILE has an id, parameters of kvm_amd or kvm.parameter=value, separated by commas, or "-", and a command.  On a processor with VMX,
 * kvm_intel takes the place of kvm_amd.  If KVM is built in, the kernel's command line must have had them.  A test fails if its status is neither
 * 0 nor 4 (skipped), or if the kernel logs a warning during it.
 *
 * Lines from the terminal $PORT: "slow FACTOR" tells how much slower this machine is than an idle one, which the guest cannot measure; tests
 * find it in /tmp/slow.  "end ID" ends that test.
 *
 * This is no script because starting a process takes longer than many tests, in L1 above all.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "svm-tlb.h"

#define SKIPPED		4
#define NO_KVM		98
#define WARNED		99
/* A failed test's output is printed up to this number of bytes. */
#define MAX_OUTPUT	100000
#define MAX_ARGS	64
/* Of syslog(2). */
#define LOG_READ_ALL	3
#define LOG_CLEAR	5
#define LOG_SIZE	10

static int port = -1;
static bool has_counters, built_in;
static const char *vendor = "kvm_amd";
/* What the running test has printed. */
static char *out;
static size_t out_size, out_room, out_line;
/* What the kernel has logged since the test began. */
static char *kernel_log;
static int log_room;

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY), ret = -1;

	if (fd < 0)
		return -1;
	if (write(fd, text, strlen(text)) == (ssize_t)strlen(text))
		ret = 0;
	close(fd);
	return ret;
}

/* Returns whether a file has this text somewhere in its first lines. */
static bool file_has(const char *path, const char *text)
{
	char buffer[4096];
	ssize_t n;
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		return false;
	n = read(fd, buffer, sizeof(buffer) - 1);
	close(fd);
	buffer[n < 0 ? 0 : n] = 0;
	return strstr(buffer, text);
}

__attribute__((format(printf, 1, 2)))
static int shell(const char *format, ...)
{
	char command[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(command, sizeof(command), format, ap);
	va_end(ap);
	fflush(stdout);
	return system(command);
}

/* Print the counters of the TLB model; nothing in L1 or without the model. */
static void tlb(void)
{
	uint64_t sum[NR_COUNTERS];

	if (has_counters && read_counters(sum) > 0) {
		printf("# tlb ");
		print_counters(sum);
		putchar('\n');
	}
}

static double uptime(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void prepare(void)
{
	static const char *clocksource = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
	static const char *const faults[] = { "failslab", "fail_page_alloc" };
	uint64_t sum[NR_COUNTERS];
	struct termios t;
	char path[128];

	/* Reserve 2 MB pages, with which some tests back their guests. */
	write_file("/proc/sys/vm/nr_hugepages", "128");

	/* If the kernel has fault injection, include allocations that may sleep, and do not log each failure. */
	for (unsigned int i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/ignore-gfp-wait", faults[i]);
		write_file(path, "N");
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/verbose", faults[i]);
		write_file(path, "0");
	}
	write_file("/sys/kernel/debug/fail_page_alloc/min-order", "0");

	/* Some tests want the TSC as the clock.  The kernel measures the TSC for a second before it trusts it. */
	for (int i = 0; i < 6 && file_has(clocksource, "tsc-early"); i++)
		usleep(500000);

	/* Only a module that is not built in has a state.  If both modules are built in, both have a directory in /sys. */
	built_in = !access("/sys/module/kvm", F_OK) && access("/sys/module/kvm/initstate", F_OK);
	if (!access("/sys/module/kvm_intel", F_OK) && file_has("/proc/cpuinfo", " vmx"))
		vendor = "kvm_intel";
	has_counters = read_counters(sum) > 0;

	log_room = klogctl(LOG_SIZE, NULL, 0);
	kernel_log = log_room > 0 ? malloc(log_room) : NULL;
	if (!kernel_log)
		err(1, "the kernel's log");

	port = getenv("PORT") ? open(getenv("PORT"), O_RDONLY | O_NOCTTY | O_CLOEXEC) : -1;
	if (port >= 0 && !tcgetattr(port, &t)) {
		t.c_lflag &= ~ECHO;
		tcsetattr(port, TCSANOW, &t);
	}
}

/* Kill all processes of a test; each of its cases has a process group of its own. */
static void kill_session(pid_t session)
{
	bool left = true;

	for (int i = 0; i < 5 && left; i++) {
		DIR *proc = opendir("/proc");
		struct dirent *entry;

		left = false;
		while (proc && (entry = readdir(proc))) {
			char path[300], stat[512], state, *end;
			pid_t pid = atoi(entry->d_name), its;
			ssize_t n;
			int fd;

			if (pid <= 0)
				continue;
			snprintf(path, sizeof(path), "/proc/%s/stat", entry->d_name);
			fd = open(path, O_RDONLY);
			if (fd < 0)
				continue;
			n = read(fd, stat, sizeof(stat) - 1);
			close(fd);
			stat[n < 0 ? 0 : n] = 0;
			end = strrchr(stat, ')');
			if (end && sscanf(end, ") %c %*d %*d %d", &state, &its) == 2 && its == session && state != 'Z') {
				kill(pid, SIGKILL);
				left = true;
			}
		}
		if (proc)
			closedir(proc);
	}
}

/* Obey the lines that the host has sent; they are short and come whole.  id, session: the running test. */
static void read_port(const char *id, pid_t session)
{
	char line[256], *value;
	ssize_t n = read(port, line, sizeof(line) - 1);
	FILE *f;

	if (n <= 0) {
		close(port);
		port = -1;
		return;
	}
	line[n] = 0;
	for (char *save, *l = strtok_r(line, "\r\n", &save); l; l = strtok_r(NULL, "\r\n", &save)) {
		value = strchr(l, ' ');
		if (!value)
			continue;
		*value++ = 0;
		if (!strcmp(l, "end") && !strcmp(value, id)) {
			kill_session(session);
		} else if (!strcmp(l, "slow")) {
			f = fopen("/tmp/slow.new", "w");
			if (f) {
				fprintf(f, "%s\n", value);
				fclose(f);
				rename("/tmp/slow.new", "/tmp/slow");
			}
		}
	}
}

/* Keep what the test has printed, and report immediately that a case has begun, because this machine may die in it.  Returns what read() does. */
static ssize_t read_output(int fd)
{
	char *end, name[200];
	ssize_t n;

	if (out_room - out_size < 4097) {
		out_room = 2 * out_room + 8192;
		out = realloc(out, out_room);
		if (!out)
			err(1, "realloc");
	}
	n = read(fd, out + out_size, 4096);
	if (n <= 0)
		return n;
	out_size += n;
	out[out_size] = 0;
	while ((end = strchr(out + out_line, '\n'))) {
		if (sscanf(out + out_line, "# RUN %199s", name) == 1) {
			printf("# case %s\n", name);
			fflush(stdout);
		}
		out_line = end + 1 - out;
	}
	return n;
}

/* Run a test, and return its status as a shell does. */
static int run(const char *id, char *command)
{
	char *args[MAX_ARGS + 1], *save;
	struct pollfd fds[3];
	bool ended = false;
	int fd[2], n = 0, status = 0;
	pid_t pid;

	for (args[n] = strtok_r(command, " \t", &save); args[n] && n < MAX_ARGS; args[n] = strtok_r(NULL, " \t", &save))
		n++;
	args[n] = NULL;

	out_size = out_line = 0;
	if (out)
		*out = 0;
	if (pipe2(fd, O_CLOEXEC))
		err(1, "pipe");
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		setsid();
		if (dup2(open("/dev/null", O_RDONLY), 0) || dup2(fd[1], 1) != 1 || dup2(fd[1], 2) != 2 || chdir("/selftests"))
			_exit(126);
		execvp(args[0], args);
		fprintf(stderr, "%s: %s\n", args[0], strerror(errno));
		_exit(127);
	}
	close(fd[1]);

	fds[0] = (struct pollfd) { .fd = fd[0], .events = POLLIN };
	fds[1] = (struct pollfd) { .fd = pidfd_open(pid, 0), .events = POLLIN };
	if (fds[1].fd < 0)
		err(1, "pidfd_open");

	/* Until the test has ended and none of its processes can print any more. */
	while (!ended || fds[0].fd >= 0) {
		fds[2] = (struct pollfd) { .fd = port, .events = POLLIN };
		if (poll(fds, 3, -1) < 0)
			err(1, "poll");
		if (fds[0].revents && read_output(fd[0]) <= 0)
			fds[0].fd = -1;
		if (fds[2].revents)
			read_port(id, pid);
		if (fds[1].revents) {
			ended = true;
			close(fds[1].fd);
			fds[1].fd = -1;
			waitpid(pid, &status, 0);
			status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
			/* It may leave processes behind that run guests, if it failed in process groups of their own. */
			kill(-pid, SIGKILL);
			if (status && status != SKIPPED)
				kill_session(pid);
		}
	}
	close(fd[0]);
	return status;
}

static bool unload(void)
{
	/* A process that has ended may still use the module for a moment. */
	for (int i = 0; i < 10; i++) {
		if (!shell("modprobe -r %s 2>/dev/null", vendor))
			return true;
		sleep(1);
	}
	return false;
}

/* Load KVM with these parameters.  Returns what went wrong, or NULL. */
static const char *reload(const char *params)
{
	char copy[512], path[256], of_vendor[512] = "", *value;
	static char wrong[600];
	const char *bad = NULL;

	if (!unload()) {
		snprintf(wrong, sizeof(wrong), "%s is in use", vendor);
		bad = wrong;
	}
	snprintf(copy, sizeof(copy), "%s", params);
	for (char *save, *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		if (strncmp(p, "kvm.", 4) && strcmp(p, "-")) {
			strcat(of_vendor, " ");
			strcat(of_vendor, p);
		}
	}
	if (shell("modprobe %s%s", vendor, of_vendor)) {
		snprintf(wrong, sizeof(wrong), "no %s with %s", vendor, params);
		bad = wrong;
	}
	snprintf(copy, sizeof(copy), "%s", params);
	for (char *save, *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		value = strchr(p, '=');
		if (strncmp(p, "kvm.", 4) || !value)
			continue;
		*value++ = 0;
		snprintf(path, sizeof(path), "/sys/module/kvm/parameters/%s", p + 4);
		if (write_file(path, value)) {
			snprintf(wrong, sizeof(wrong), "no kvm with %s=%s", p + 4, value);
			bad = wrong;
		}
	}
	return bad;
}

/* Returns which of these parameters built-in KVM does not have, or NULL. */
static const char *compare(const char *params)
{
	static char wrong[600];
	char copy[512];

	snprintf(copy, sizeof(copy), "%s", strcmp(params, "-") ? params : "");
	for (char *save, *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
		bool of_kvm = !strncmp(p, "kvm.", 4);
		char *name = of_kvm ? p + 4 : p, *value = strchrnul(name, '=');

		snprintf(wrong, sizeof(wrong), "built-in %s does not have %s", of_kvm ? "kvm" : vendor, name);
		if (*value)
			*value++ = 0;
		/* A bool that is 1 reads as Y. */
		if (shell("tr YN 10 </sys/module/%s/parameters/%s | grep -qx '%s'", of_kvm ? "kvm" : vendor, name, value))
			return wrong;
	}
	return NULL;
}

/* A program that skips all of its cases exits with status 0. */
static bool skipped_all(void)
{
	bool skipped = false;

	for (char *l = out, *end; l && l < out + out_size; l = end + 1) {
		end = strchrnul(l, '\n');
		if (!strncmp(l, "ok ", 3)) {
			if (!memmem(l, end - l, "# SKIP", 6))
				return false;
			skipped = true;
		}
		if (!*end)
			break;
	}
	return skipped;
}

/* Print the first line of the test's output that says why it was skipped. */
static void print_reason(void)
{
	for (char *l = out, *end; l && l < out + out_size; l = end + 1) {
		bool more;

		end = strchrnul(l, '\n');
		more = *end;
		*end = 0;
		if (strcasestr(l, "skip") || strcasestr(l, "require")) {
			for (; *l; l++)
				if (*l != '#')
					putchar(*l);
			return;
		}
		if (!more)
			return;
		*end = '\n';
	}
}

/* Print text with a prefix that marks it as a failed test's output. */
static void print_output(const char *text, size_t size)
{
	const char *end = text + size;

	while (text < end) {
		const char *newline = memchr(text, '\n', end - text) ?: end;

		printf("#   %.*s\n", (int)(newline - text), text);
		text = newline + 1;
	}
}

/* Put the first line that a command prints into line.  Returns the command's status. */
static int first_line(const char *command, char *line, size_t size)
{
	FILE *f = popen(command, "r");

	if (!f)
		err(1, "%s", command);
	if (!fgets(line, size, f))
		*line = 0;
	line[strcspn(line, "\n")] = 0;
	while (fgetc(f) != EOF)
		;
	return pclose(f);
}

static void test(int n, const char *id, char *params, char *command)
{
	static char loaded[512] = "-", splat[512];
	/* Warnings while KVM is unloaded count for the next test. */
	static const char *wrong;
	double start, took;
	int rc, logged;

	klogctl(LOG_CLEAR, NULL, 0);
	if (strcmp(params, loaded)) {
		wrong = built_in ? compare(params) : reload(params);
		snprintf(loaded, sizeof(loaded), "%s", params);
	}
	printf("# start %s\n", id);
	start = uptime();
	rc = run(id, command);
	took = uptime() - start;
	if (!rc && skipped_all())
		rc = SKIPPED;
	if (wrong)
		rc = NO_KVM;
	tlb();

	/* Look for a warning only if the kernel has said anything. */
	logged = klogctl(LOG_READ_ALL, kernel_log, log_room);
	if (logged > 0 && first_line("splat", splat, sizeof(splat)) && (!rc || rc == SKIPPED))
		rc = WARNED;
	/* lockdep turns itself off after its first report; from then on, no test can pass. */
	if (!access("/proc/lockdep_stats", F_OK) && shell("grep -q 'debug_locks: *1' /proc/lockdep_stats")) {
		rc = WARNED;
		strcpy(splat, "lockdep has turned itself off");
	}

	/* Rounded down, so that nothing takes longer than it did. */
	took = (int)(10 * took) / 10.0;
	if (!rc) {
		printf("ok %d - %s # time=%.1f\n", n, id, took);
	} else if (rc == SKIPPED) {
		printf("ok %d - %s # SKIP ", n, id);
		print_reason();
		printf(" # time=%.1f\n", took);
	} else {
		printf("not ok %d - %s # time=%.1f ", n, id, took);
		if (rc == WARNED)
			printf("kernel log: %s\n", splat);
		else if (rc == NO_KVM)
			printf("%s\n", wrong);
		else if (rc == 128 + SIGKILL)
			printf("killed\n");
		else
			printf("status %d\n", rc);
		print_output(out_size > MAX_OUTPUT ? out + out_size - MAX_OUTPUT : out, out_size > MAX_OUTPUT ? MAX_OUTPUT : out_size);
		if (rc == WARNED && logged > 0)
			print_output(kernel_log, logged);
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char *line = NULL;
	size_t room = 0;
	int n = 0;
	FILE *list;

	list = argc == 2 ? fopen(argv[1], "re") : NULL;
	if (!list)
		errx(1, "usage: run-tests FILE");
	setvbuf(stdout, NULL, _IOFBF, 65536);
	prepare();
	printf("TAP version 13\n");
	tlb();
	while (getline(&line, &room, list) > 0)
		n += *line != '\n';
	printf("1..%d\n", n);
	rewind(list);
	for (n = 0; getline(&line, &room, list) > 0;) {
		char *save, *id = strtok_r(line, " \t\n", &save), *params = strtok_r(NULL, " \t\n", &save), *command = strtok_r(NULL, "\n", &save);

		if (command)
			test(++n, id, params, command);
	}
	return 0;
}
