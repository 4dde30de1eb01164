/* limits WHOM RESOURCE NUMBER PROGRAM...: limits a resource of others by its number in getrlimit(2), those of the process
 * that watches over the step (`w`), of kiln (`k`) and of kiln's parent (`p`), and becomes a program.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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
	int watcher = getppid(), kiln = parent_of(watcher), keeper = parent_of(kiln);
	struct rlimit limit;

	if (count < 5)
		return 2;
	limit.rlim_cur = limit.rlim_max = atol(words[3]);
	for (const char *whom = words[1]; *whom; whom++) {
		if (prlimit(*whom == 'w' ? watcher : *whom == 'k' ? kiln : keeper, atoi(words[2]), &limit, NULL) == 0)
			printf("LIMITED %c\n", *whom);
	}
	fflush(stdout);
	execv(words[4], words + 4);
	return 2;
}
