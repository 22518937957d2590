/* The bare cost of running scripts: each SCRIPT COUNT times, one after the other, with
 * posix_spawn.
 *
 *     cc -O2 -o spawn spawn.c && ./spawn COUNT SCRIPT...
 *
 * Prints the seconds that it took.
 */
#define _GNU_SOURCE
#include <err.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

int main(int argc, char **argv) {
    if (argc < 3) errx(2, "usage: spawn COUNT SCRIPT...");
    int count = atoi(argv[1]), status;
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < count; i++)
        for (char **script = argv + 2; *script; script++) {
            char *arguments[] = {*script, "bucket", "name", "4096", "client", NULL};
            char *environment[] = {"PATH=/usr/bin:/bin", NULL};
            pid_t child;
            if (posix_spawn(&child, *script, NULL, NULL, arguments, environment))
                errx(1, "cannot run %s", *script);
            if (waitpid(child, &status, 0) != child || status)
                errx(1, "%s failed", *script);
        }
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("%.6f\n", to.tv_sec - from.tv_sec + (to.tv_nsec - from.tv_nsec) / 1e9);
    return 0;
}
