/* Exchanges two entries of a directory until a third is there: exchange ONE OTHER END */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **words) {
	time_t begun = time(0);
	while (count == 4 && access(words[3], F_OK) != 0 && time(0) - begun < 600)
		for (int i = 0; i < 10000; i++)
			syscall(SYS_renameat2, AT_FDCWD, words[1], AT_FDCWD, words[2], 2 /* RENAME_EXCHANGE */);
	return 0;
}
