/* limits WHOM RESOURCE NUMBER PROGRAM...: limits a resource of others by its number in getrlimit(2), those of the process
 * that watches over the step (`w`), of kiln (`k`) and of kiln's parent (`p`), or without /proc of all others (`a`), says which it
 * could, and becomes a program.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/resource.h>

#include "hostile.h"

int main(int count, char **words)
{
	struct rlimit limit, own;
	int whose[256];

	if (count < 5)
		return 2;
	if (prlimit(0, RLIMIT_CPU, NULL, &own) != 0 || prlimit(0, RLIMIT_CPU, &own, NULL) != 0)
		puts("own limits are refused");
	find_processes(whose);
	limit.rlim_cur = limit.rlim_max = atol(words[3]);
	for (int pid = 1; *words[1] == 'a' && pid < 32768; pid++) {
		if (pid != getpid() && prlimit(pid, atoi(words[2]), &limit, NULL) == 0)
			puts("LIMITED a");
	}
	for (const char *whom = words[1]; *whom && *whom != 'a'; whom++) {
		if (prlimit(whose[(int)*whom], atoi(words[2]), &limit, NULL) == 0)
			printf("LIMITED %c\n", *whom);
	}
	fflush(stdout);
	execv(words[4], words + 4);
	return 2;
}
