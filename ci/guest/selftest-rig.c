// SPDX-License-Identifier: GPL-2.0-only
/*
 * ci/build/kernel links this into each selftest with the linker's --wrap, so that
 * no verdict depends on the speed of the host, and so that random numbers can be
 * repeated.  ci/guest/run-tests writes to /tmp/slow how many times slower than
 * an idle machine this machine currently is.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

/* Time limits that a test case sets itself are multiplied by this. */
#define PATIENCE	2

int __real_poll(struct pollfd *fds, nfds_t nr, int timeout);
unsigned int __real_alarm(unsigned int seconds);
void __real_srand(unsigned int seed);
void __real_srandom(unsigned int seed);

int __wrap_poll(struct pollfd *fds, nfds_t nr, int timeout);
unsigned int __wrap_alarm(unsigned int seconds);
void __wrap_srand(unsigned int seed);
void __wrap_srandom(unsigned int seed);

static double slow(void)
{
	FILE *f = fopen("/tmp/slow", "r");
	double value;

	if (!f || fscanf(f, "%lf", &value) != 1 || value < 1)
		value = 1;
	if (f)
		fclose(f);
	return value;
}

/*
 * The test harness waits for a test case with poll().  Ignore its default
 * limit of 30 seconds: the rig watches the limit of the whole program.
 * Count other limits in seconds of an idle machine.
 */
int __wrap_poll(struct pollfd *fds, nfds_t nr, int timeout)
{
	double left = timeout / 1000.0 * PATIENCE;
	int r;

	if (timeout < 5000)
		return __real_poll(fds, nr, timeout);
	if (timeout == 30000)
		return __real_poll(fds, nr, -1);
	do {
		r = __real_poll(fds, nr, 1000);
		left -= 1 / slow();
	} while (!r && left > 0);
	return r;
}

/* Tests use alarm() to end after a second or two if they hang. */
unsigned int __wrap_alarm(unsigned int seconds)
{
	return __real_alarm(seconds * 30);
}

/* Without RIG_SEED, random numbers differ from run to run; set it to the seed that was printed to repeat them. */
static unsigned int seed_of_rig(unsigned int seed)
{
	const char *rig = getenv("RIG_SEED");

	if (rig)
		seed = atoi(rig);
	fprintf(stderr, "RIG_SEED=%u\n", seed);
	return seed;
}

void __wrap_srand(unsigned int seed)
{
	__real_srand(seed_of_rig(seed));
}

void __wrap_srandom(unsigned int seed)
{
	__real_srandom(seed_of_rig(seed));
}
