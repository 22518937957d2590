/* The disk's own limit for small files, without network and hash: THREADS at once, each
 * open, write, fsync, link, fsync of the directory.
 *
 *     cc -O2 -pthread -o durable durable.c && ./durable DIRECTORY SIZE THREADS COUNT
 *
 * Prints the seconds that COUNT files of SIZE bytes took.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_THREADS = 256 };

static int directory, size, count;
static char *content;
static atomic_int started;

static void *work(void *unused) {
    (void)unused;
    for (int number; (number = started++) < count;) {
        char name[32], path[64];
        int file = openat(directory, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
        if (file < 0) err(1, "open");
        if (write(file, content, size) != size) err(1, "write");
        if (fsync(file)) err(1, "fsync");
        sprintf(path, "/proc/self/fd/%d", file);
        sprintf(name, "%d", number);
        if (linkat(AT_FDCWD, path, directory, name, AT_SYMLINK_FOLLOW))
            err(1, "%s", name);
        if (fsync(directory)) err(1, "fsync");
        close(file);
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 5) errx(2, "usage: durable DIRECTORY SIZE THREADS COUNT");
    directory = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) err(1, "%s", argv[1]);
    size = atoi(argv[2]);
    int threads = atoi(argv[3]);
    if (threads > MOST_THREADS) errx(2, "%d threads are too many", threads);
    count = atoi(argv[4]);
    content = malloc(size);
    memset(content, 'a', size);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    pthread_t running[MOST_THREADS];
    for (int i = 0; i < threads; i++)
        if (pthread_create(&running[i], NULL, work, NULL)) errx(1, "no thread");
    for (int i = 0; i < threads; i++) pthread_join(running[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("%.6f\n", to.tv_sec - from.tv_sec + (to.tv_nsec - from.tv_nsec) / 1e9);
    return 0;
}
