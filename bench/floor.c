/* The floor: the least cost of a durable, hashed upload.
 *
 * One thread and no framework: recv, SHA-256 by libcrypto, write to an unnamed
 * file, fsync, link, fsync of the directory, answer. It understands only the
 * benchmark's requests: PUT with a Content-Length, on kept connections.
 *
 *     cc -O2 -o floor floor.c -lcrypto && ./floor PORT DIRECTORY
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ = 256 * 1024, MOST_HEADERS = 16 * 1024 };

struct connection {
    int socket, file, headers;  /* file is -1 between requests */
    long long left;
    EVP_MD_CTX *hash;
    char head[MOST_HEADERS + 1], name[256];
};

static int directory;
static char buffer[READ];

/* The file is complete: make it durable, publish it, answer. */
static void commit(struct connection *c) {
    unsigned char digest[32];
    char path[64], hex[65], answer[512];
    EVP_DigestFinal_ex(c->hash, digest, NULL);
    for (int i = 0; i < 32; i++) sprintf(hex + 2 * i, "%02x", digest[i]);
    sprintf(path, "/proc/self/fd/%d", c->file);
    const char *status = "200 OK";
    if (fsync(c->file)) err(1, "fsync");
    if (linkat(AT_FDCWD, path, directory, c->name, AT_SYMLINK_FOLLOW))
        status = "405 Method Not Allowed";
    else if (fsync(directory)) err(1, "fsync");
    close(c->file);
    c->file = -1;
    int content = 64 + 2 + strlen(c->name) + 1;
    int size = sprintf(answer, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s  %s\n",
                       status, content, hex, c->name);
    if (send(c->socket, answer, size, MSG_NOSIGNAL) != size) shutdown(c->socket, 2);
}

static void body(struct connection *c, const char *data, int size) {
    EVP_DigestUpdate(c->hash, data, size);
    for (int done = 0; done < size;) {
        int wrote = write(c->file, data + done, size - done);
        if (wrote < 0) err(1, "write");
        done += wrote;
    }
    c->left -= size;
    if (!c->left) commit(c);
}

/* Headers, as far as received. Returns the bytes of data they took, -1 to close. */
static int headers(struct connection *c, const char *data, int size) {
    int before = c->headers;
    if (before + size > MOST_HEADERS) size = MOST_HEADERS - before;
    memcpy(c->head + before, data, size);
    c->head[before + size] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) {
        c->headers += size;
        return c->headers < MOST_HEADERS ? size : -1;
    }
    c->headers = 0;
    *end = 0;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    char *slash = strchr(c->head, ' ');
    slash = slash ? strchr(slash + 2, '/') : NULL; /* after the token */
    if (!length || !slash || sscanf(slash + 1, "%255s", c->name) != 1) return -1;
    c->left = atoll(length + 17);
    c->file = openat(directory, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (c->file < 0) err(1, "open");
    EVP_DigestInit_ex(c->hash, EVP_sha256(), NULL);
    if (strcasestr(c->head, "\r\nexpect:")) {
        const char *go_on = "HTTP/1.1 100 Continue\r\n\r\n";
        send(c->socket, go_on, strlen(go_on), MSG_NOSIGNAL);
    }
    if (!c->left) commit(c);
    return end + 4 - c->head - before;
}

static int readable(struct connection *c) {
    int size = recv(c->socket, buffer, READ, 0);
    if (size <= 0) return -1;
    for (int done = 0; done < size;) {
        int now = size - done;
        if (c->file < 0) {
            now = headers(c, buffer + done, now);
            if (now < 0) return -1;
        } else {
            if (now > c->left) now = c->left;
            body(c, buffer + done, now);
        }
        done += now;
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 3) errx(2, "usage: floor PORT DIRECTORY");
    directory = open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) err(1, "%s", argv[2]);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in here = {.sin_family = AF_INET,
                               .sin_port = htons(atoi(argv[1])),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&here, sizeof here) || listen(listener, 1024))
        err(1, "port %s", argv[1]);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event);
    while (epoll_wait(poll, &event, 1, -1) == 1) {
        struct connection *c = event.data.ptr;
        if (!c) {
            c = calloc(1, sizeof *c);
            c->socket = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (c->socket < 0) err(1, "accept");
            c->file = -1;
            c->hash = EVP_MD_CTX_new();
            struct epoll_event new = {.events = EPOLLIN, .data.ptr = c};
            epoll_ctl(poll, EPOLL_CTL_ADD, c->socket, &new);
        } else if (readable(c)) {
            if (c->file >= 0) close(c->file);
            close(c->socket);
            EVP_MD_CTX_free(c->hash);
            free(c);
        }
    }
    err(1, "epoll_wait");
}
