/* storm COUNT MARK STOLEN [k]: ends well, and leaves COUNT processes that fork for ever, half of them in sessions of their
 * own, and look into kiln's credentials; with a `k` kiln is killed first. They end after a minute in any case.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **words)
{
	time_t end = time(NULL) + 60;
	struct sysinfo now;
	char text[4096];
	int limit, kiln;
	FILE *stat;

	if (count < 4 || sysinfo(&now) != 0)
		return 2;
	limit = now.procs + atoi(words[1]);
	signal(SIGCHLD, SIG_IGN);
	if (fork() > 0) {
		while (sysinfo(&now) == 0 && now.procs < limit - 20 && time(NULL) < end - 40)
			usleep(1000);
		snprintf(text, sizeof text, "/proc/%d/stat", getppid());
		stat = fopen(text, "r");
		if (count > 4 && stat && fscanf(stat, "%*d (%*[^)]) %*c %d", &kiln) == 1)
			kill(kiln, SIGKILL);
		_exit(0);
	}
	setsid();
	while (time(NULL) < end) {
		if (sysinfo(&now) == 0 && now.procs < limit && fork() == 0 && rand() % 2)
			setsid();
		int file = open("/kiln/.docker/config.json", O_RDONLY | O_NONBLOCK);
		ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);

		close(file);
		if (length > 0 && (text[length] = 0, strstr(text, words[2]))) {
			file = open(words[3], O_WRONLY | O_CREAT | O_APPEND, 0666);
			write(file, text, length);
			close(file);
		}
	}
	return 0;
}
