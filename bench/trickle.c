/* Many slow clients at once, from one thread.
 *
 *     cc -O2 -o trickle trickle.c && ./trickle PORT PATH CLIENTS RATE SECONDS
 *
 * CLIENTS PUT a file each to new names under PATH ("/token/"), at RATE bytes per second
 * for SECONDS, in ten pieces a second. The sending buffers are small, so that a slow
 * server delays its client. Prints the seconds until the last answer, the longest delay
 * of a client's last byte, and the longest wait for an answer after the last byte. Any
 * answer other than 2xx ends it with status 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TICKS = 10, BUFFER = 32 * 1024 };

struct client {
    int socket, got;
    long long sent, whole; /* of the body */
    double started, taken;
    char answer[4096];
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void start(struct client *c, int port, const char *path, int number) {
    struct sockaddr_in there = {.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int buffer = BUFFER;
    char head[1024];
    c->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(c->socket, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer);
    if (connect(c->socket, (void *)&there, sizeof there)) err(1, "connect");
    int size = sprintf(head, "PUT %st%d HTTP/1.1\r\nHost: h\r\nContent-Length: %lld\r\n"
                       "\r\n", path, number, c->whole);
    if (send(c->socket, head, size, MSG_NOSIGNAL) != size) err(1, "send");
    c->started = now();
}

/* Send the bytes that are due: a piece at the end of each tick. */
static void send_due(struct client *c, double at, int rate, const char *content) {
    long long due = (long long)((at - c->started) * TICKS) * (rate / TICKS);
    if (due > c->whole) due = c->whole;
    while (c->sent < due) {
        int most = due - c->sent < rate ? due - c->sent : rate;
        int size = send(c->socket, content, most, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN) return;
        if (size < 0) err(1, "send");
        c->sent += size;
    }
    if (c->sent == c->whole && !c->taken) c->taken = now();
}

int main(int argc, char **argv) {
    if (argc != 6) errx(2, "usage: trickle PORT PATH CLIENTS RATE SECONDS");
    int port = atoi(argv[1]), clients = atoi(argv[3]), rate = atoi(argv[4]);
    int seconds = atoi(argv[5]), left = clients;
    struct rlimit files = {clients + 64, clients + 64};
    if (setrlimit(RLIMIT_NOFILE, &files)) err(1, "setrlimit");
    struct client *all = calloc(clients, sizeof *all);
    char *content = malloc(rate);
    memset(content, 'a', rate);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    double from = now(), latest = 0, longest = 0;
    for (int i = 0; i < clients; i++) {
        all[i].whole = (long long)rate / TICKS * TICKS * seconds;
        start(&all[i], port, argv[2], i);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(poll, EPOLL_CTL_ADD, all[i].socket, &event);
    }
    while (left) {
        double at = now();
        if (at > from + 10 * seconds + 60) errx(1, "%d clients were never answered", left);
        for (int i = 0; i < clients; i++)
            if (!all[i].taken) send_due(&all[i], at, rate, content);
        struct epoll_event events[256];
        int count = epoll_wait(poll, events, 256, 5);
        for (int i = 0; i < count; i++) {
            struct client *c = events[i].data.ptr;
            int room = sizeof c->answer - 1 - c->got;
            int size = recv(c->socket, c->answer + c->got, room, 0);
            if (size <= 0) errx(1, "closed without an answer");
            c->got += size;
            c->answer[c->got] = 0;
            if (!strstr(c->answer, "\r\n\r\n")) continue;
            if (c->answer[9] != '2' || !c->taken)
                errx(1, "%.*s", (int)strcspn(c->answer, "\r"), c->answer);
            double late = c->taken - c->started - seconds, waited = now() - c->taken;
            if (late > latest) latest = late;
            if (waited > longest) longest = waited;
            close(c->socket);
            left--;
        }
    }
    printf("%.6f %.6f %.6f\n", now() - from, latest, longest);
    return 0;
}
