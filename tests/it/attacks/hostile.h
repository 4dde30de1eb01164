/* What the programs of hostile steps have in common. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The parent of a process, by proc_pid_stat(5); 0 if there is none. */
static inline int parent_of(int pid)
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

/* kiln's processes by their letters: the one that watches over the step (`w`), which is the parent of this one, kiln (`k`) and
 * kiln's parent (`p`). To be found before the first of them is hurt. */
static inline void find_processes(int whose[256])
{
	whose['w'] = getppid();
	whose['k'] = parent_of(whose['w']);
	whose['p'] = parent_of(whose['k']);
}

/* Looks into a file with credentials, and keeps what has `mark` in it in the file `stolen`. */
static inline void steal(const char *credentials, const char *mark, const char *stolen)
{
	char text[4096];
	int file = open(credentials, O_RDONLY | O_NONBLOCK);
	ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);

	close(file);
	if (length <= 0 || (text[length] = 0, !strstr(text, mark)))
		return;
	file = open(stolen, O_WRONLY | O_CREAT | O_APPEND, 0666);
	write(file, text, length);
	close(file);
}
