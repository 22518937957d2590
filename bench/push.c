/* A load of small pushes, from one thread, so that the client needs little CPU.
 *
 *     cc -O2 -o push push.c -lssl
 *     ./push PORT PATH FIELD PREFIX SIZE CONNECTIONS COUNT KEEP [tls]
 *
 * COUNT files of SIZE bytes to PATH ("/token/"), named PREFIX and a number, as the
 * body of a PUT (FIELD -) or in a POST as that field of a form, over CONNECTIONS at
 * once, which are kept (KEEP 1) or opened for each push (KEEP 0), with TLS 1.3 if asked.
 * Prints the seconds that all took, and the seconds of the slowest. Any answer other
 * than 2xx ends it with status 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <openssl/ssl.h>
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
    SSL *tls;
    double started;
    char *request, answer[8192];
};

static SSL_CTX *tls;
static int poll, port, post, file_size, count, keep, started, done, redials;
static const char *path, *field, *prefix;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

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
    if (tls) {
        c->tls = SSL_new(tls);
        SSL_set_fd(c->tls, c->socket);
        if (SSL_connect(c->tls) != 1) errx(1, "TLS failed");
    }
    listen_for(c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void hang_up(struct connection *c) {
    SSL_free(c->tls);
    c->tls = NULL;
    close(c->socket);
}

/* As send and recv; TLS blocks, which is short. */
static int put(struct connection *c, const char *data, int size) {
    if (c->tls) return SSL_write(c->tls, data, size);
    return send(c->socket, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static int get(struct connection *c, char *data, int size) {
    if (!c->tls) return recv(c->socket, data, size, 0);
    int got = SSL_read(c->tls, data, size);
    /* Not an answer yet, but a session ticket. */
    if (got <= 0 && SSL_get_error(c->tls, got) == SSL_ERROR_WANT_READ) errno = EAGAIN;
    return got;
}

/* Make the next request, with different content for each file. */
static void next(struct connection *c) {
    int number = started++, before = 0, after = 0;
    char head[1024], form[512] = "";
    static const char end[] = "\r\n--" BOUNDARY "--\r\n";
    if (post) {
        before = sprintf(form,
                         "--" BOUNDARY "\r\nContent-Disposition: form-data; "
                         "name=\"%s\"; filename=\"%s%d\"\r\n"
                         "Content-Type: application/octet-stream\r\n\r\n",
                         field, prefix, number);
        after = sizeof end - 1;
    }
    int length = before + file_size + after;
    int size = sprintf(head, "%s %s", post ? "POST" : "PUT", path);
    if (!post) size += sprintf(head + size, "%s%d", prefix, number);
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
    c->started = now();
}

/* Whether the answer is complete. */
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
    if (argc != 9 && argc != 10)
        errx(2, "usage: push PORT PATH FIELD PREFIX SIZE CONNECTIONS COUNT KEEP [tls]");
    port = atoi(argv[1]);
    path = argv[2];
    field = argv[3];
    post = strcmp(field, "-");
    prefix = argv[4];
    file_size = atoi(argv[5]);
    int connections = atoi(argv[6]);
    count = atoi(argv[7]);
    keep = atoi(argv[8]);
    if (argc == 10) {
        tls = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
        SSL_CTX_clear_mode(tls, SSL_MODE_AUTO_RETRY);
    }
    poll = epoll_create1(EPOLL_CLOEXEC);
    if (connections > count) connections = count;
    struct connection *all = calloc(connections, sizeof *all);
    for (int i = 0; i < connections; i++) dial(all + i);
    double from = now(), slowest = 0;
    for (int i = 0; i < connections; i++) next(all + i);
    while (done < count) {
        struct epoll_event event;
        if (epoll_wait(poll, &event, 1, 60000) != 1) errx(1, "no answer for a minute");
        struct connection *c = event.data.ptr;
        if (c->sent < c->size) {
            int size = put(c, c->request + c->sent, c->size - c->sent);
            if (size < 0 && errno != EAGAIN && errno != EPIPE && errno != ECONNRESET)
                err(1, "send");
            if (size > 0) c->sent += size;
            else if (errno != EAGAIN) c->sent = c->size; /* recv reports it */
            if (c->sent == c->size) listen_for(c, EPOLL_CTL_MOD, EPOLLIN);
            continue;
        }
        int size = get(c, c->answer + c->got, sizeof c->answer - 1 - c->got);
        if (size < 0 && errno == EAGAIN) continue;
        if (size < 0 && errno != ECONNRESET) err(1, "recv");
        if (size <= 0 && keep && !c->got && redials++ < count) {
            /* Closed between two requests, which a server may do. */
            hang_up(c);
            c->sent = 0;
            dial(c);
            continue;
        }
        if (size < 0 || (!size && (keep || !c->got))) errx(1, "closed, no answer");
        c->got += size;
        if (size && !whole(c)) continue;
        done++;
        double took = now() - c->started;
        if (took > slowest) slowest = took;
        if (!keep) hang_up(c);
        if (started >= count) {
            if (keep) hang_up(c);
            continue;
        }
        if (!keep) dial(c);
        else listen_for(c, EPOLL_CTL_MOD, EPOLLOUT);
        next(c);
    }
    printf("%.6f %.6f\n", now() - from, slowest);
    return 0;
}
