/* storm COUNT MARK STOLEN [k]: ends well, and leaves COUNT processes that fork for ever, half of them in sessions of their
 * own, and look into kiln's credentials; with a `k` kiln is killed first. They end after a minute in any case.
 */
#include <signal.h>
#include <stdlib.h>
#include <sys/sysinfo.h>
#include <time.h>

#include "hostile.h"

int main(int count, char **words)
{
	time_t end = time(NULL) + 60;
	struct sysinfo now;
	int limit, whose[256];

	if (count < 4 || sysinfo(&now) != 0)
		return 2;
	limit = now.procs + atoi(words[1]);
	signal(SIGCHLD, SIG_IGN);
	if (fork() > 0) {
		while (sysinfo(&now) == 0 && now.procs < limit - 20 && time(NULL) < end - 40)
			usleep(1000);
		find_processes(whose);
		if (count > 4)
			kill(whose['k'], SIGKILL);
		_exit(0);
	}
	setsid();
	while (time(NULL) < end) {
		if (sysinfo(&now) == 0 && now.procs < limit && fork() == 0 && rand() % 2)
			setsid();
		steal("/kiln/.docker/config.json", words[2], words[3]);
	}
	return 0;
}
