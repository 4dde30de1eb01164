/* A process of the job's own that gave its capabilities away, as daemons do: becomes the program of its arguments. */
#include <sys/prctl.h>
#include <unistd.h>

int main(int count, char **words) {
    for (int capability = 0; capability < 64; capability++)
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
    if (count > 1)
        execv(words[1], words + 1);
    return 8;
}
