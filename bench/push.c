/* A load of small pushes, from one thread, so that the client costs little.
 *
 *     cc -O2 -o push push.c && ./push PORT PATH METHOD SIZE CONNECTIONS COUNT KEEP
 *
 * COUNT files of SIZE bytes to new names under PATH ("/token/"), as the body of a PUT
 * or as a form in a POST, over CONNECTIONS at once, which are kept (KEEP 1) or made
 * anew for each push (KEEP 0). Prints the seconds that it took; any answer other than
 * 2xx ends it with status 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BOUNDARY "------------------------5f3759df"

struct connection {
    int socket, sent, size, got;
    char *request, answer[8192];
};

static int poll, port, post, file_size, count, keep, started, done;
static const char *path;

static void listen_for(struct connection *c, int what, int events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poll, what, c->socket, &event)) err(1, "epoll_ctl");
}

static void dial(struct connection *c) {
    struct sockaddr_in there = {.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(c->socket, (void *)&there, sizeof there)) err(1, "connect");
    listen_for(c, EPOLL_CTL_ADD, EPOLLOUT);
}

/* Make the next request; the content differs from file to file. */
static void next(struct connection *c) {
    int number = started++, before = 0, after = 0;
    char head[1024], form[512] = "";
    static const char end[] = "\r\n--" BOUNDARY "--\r\n";
    if (post) {
        before = sprintf(form,
                         "--" BOUNDARY "\r\nContent-Disposition: form-data; "
                         "name=\"file\"; filename=\"f%d\"\r\n"
                         "Content-Type: application/octet-stream\r\n\r\n",
                         number);
        after = sizeof end - 1;
    }
    int length = before + file_size + after;
    int size = sprintf(head, "%s %s", post ? "POST" : "PUT", path);
    if (!post) size += sprintf(head + size, "f%d", number);
    size += sprintf(head + size, " HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n", length);
    if (post)
        size += sprintf(head + size,
                        "Content-Type: multipart/form-data; boundary=" BOUNDARY "\r\n");
    if (!keep) size += sprintf(head + size, "Connection: close\r\n");
    size += sprintf(head + size, "\r\n");
    c->request = realloc(c->request, size + length);
    memcpy(c->request, head, size);
    memcpy(c->request + size, form, before);
    memset(c->request + size + before, 'a' + number % 26, file_size);
    memcpy(c->request + size + before + file_size, end, after);
    c->size = size + length;
    c->sent = c->got = 0;
}

/* Whether the answer is whole. */
static int whole(struct connection *c) {
    c->answer[c->got] = 0;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end) return 0;
    if (c->answer[9] != '2') errx(1, "%.*s", (int)strcspn(c->answer, "\r"), c->answer);
    char *length = strcasestr(c->answer, "\r\ncontent-length:");
    if (!length || length > end) return !keep ? 0 : 1;
    return c->got >= end + 4 - c->answer + atoi(length + 17);
}

int main(int argc, char **argv) {
    if (argc != 8) errx(2, "usage: push PORT PATH METHOD SIZE CONNECTIONS COUNT KEEP");
    port = atoi(argv[1]);
    path = argv[2];
    post = !strcmp(argv[3], "POST");
    file_size = atoi(argv[4]);
    int connections = atoi(argv[5]);
    count = atoi(argv[6]);
    keep = atoi(argv[7]);
    poll = epoll_create1(EPOLL_CLOEXEC);
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < connections && started < count; i++) {
        struct connection *c = calloc(1, sizeof *c);
        dial(c);
        next(c);
    }
    while (done < count) {
        struct epoll_event event;
        if (epoll_wait(poll, &event, 1, 60000) != 1) errx(1, "no answer for a minute");
        struct connection *c = event.data.ptr;
        if (c->sent < c->size) {
            int size = send(c->socket, c->request + c->sent, c->size - c->sent,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
            if (size < 0 && errno != EAGAIN) err(1, "send");
            if (size > 0) c->sent += size;
            if (c->sent == c->size) listen_for(c, EPOLL_CTL_MOD, EPOLLIN);
            continue;
        }
        int size = recv(c->socket, c->answer + c->got, sizeof c->answer - 1 - c->got, 0);
        if (size < 0) err(1, "recv");
        c->got += size;
        if (size && !whole(c)) continue;
        if (!size && (keep || !c->got)) errx(1, "closed without an answer");
        done++;
        if (!keep) close(c->socket);
        if (started >= count) {
            if (keep) close(c->socket);
            continue;
        }
        if (!keep) dial(c);
        else listen_for(c, EPOLL_CTL_MOD, EPOLLOUT);
        next(c);
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    printf("%.6f\n", to.tv_sec - from.tv_sec + (to.tv_nsec - from.tv_nsec) / 1e9);
    return 0;
}
