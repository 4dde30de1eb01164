/* Ends processes by giving them no processor time: limit PID... Says which could be given it. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

int main(int count, char **words)
{
	struct rlimit none = {0, 0}, now;

	for (int at = 1; at < count; at++) {
		if (prlimit(0, RLIMIT_CPU, NULL, &now) != 0 || prlimit(0, RLIMIT_CPU, &now, NULL) != 0)
			puts("own limits are refused");
		if (prlimit(atoi(words[at]), RLIMIT_CPU, &none, NULL) == 0)
			printf("LIMITED %s\n", words[at]);
	}
	return 0;
}
