/* A TCP proxy that is as far away as it is told: each byte arrives half a round trip later, and each
 * connection carries so many bytes a second each way. Opening a connection costs a round trip.
 *
 *     delay_line PORT ROUND_TRIP_US BYTES_PER_S COUNTERS
 *
 * Listens on a free port of the loopback, prints it, and forwards to PORT of this machine until it is
 * ended, or its parent ends. BYTES_PER_S 0 sets no limit. COUNTERS is a file of four 64-bit numbers
 * that are kept current: connections, HTTP requests, bytes to the server, bytes from it.
 *
 * One thread, ppoll, nothing shared. A pair of sockets has two lines, one each way.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <netinet/tcp.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 64 << 10, PAIRS_MAX = 1024 };
/* More than 16 MiB under way: the sender is not read until some of it has arrived. */
static const uint64_t UNDER_WAY_MAX = 16 << 20;

typedef struct Piece {
    struct Piece *next;
    int64_t due;
    size_t begin, end;
    char bytes[];
} Piece;

typedef struct {
    int from, to;
    Piece *first, *last;
    uint64_t under_way;
    int64_t free_at; /* when the line has carried what was put on it */
    int ended;       /* nothing more comes in */
    int shut;        /* and everything has gone out */
} Line;

typedef struct {
    Line up, down;
    int answered; /* the last bytes came from the server */
} Pair;

typedef struct {
    uint64_t connections, requests, up, down;
} Counters;

static Pair *pairs[PAIRS_MAX];
static int pair_count;
static int64_t round_trip_ns;
static double ns_per_byte;
static Counters *counters;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* A request begins where bytes of the client come after bytes of the server, or first, and look like
 * one: the body that follows "100 Continue" does not. */
static int begins_request(const char *bytes, size_t size) {
    static const char *const verbs[] = {"GET ", "PUT ", "POST", "HEAD", "DELE"};
    for (size_t at = 0; size >= 4 && at < sizeof verbs / sizeof *verbs; at++)
        if (memcmp(bytes, verbs[at], 4) == 0) return 1;
    return 0;
}

static void take_in(Pair *pair, Line *line, int64_t now) {
    Piece *piece = malloc(sizeof *piece + PIECE);
    if (!piece) die("malloc");
    ssize_t size = recv(line->from, piece->bytes, PIECE, 0);
    int yes = 1;
    /* A peer that waits for the acknowledgement of a small packet waits for nothing here. */
    setsockopt(line->from, IPPROTO_TCP, TCP_QUICKACK, &yes, sizeof yes);
    if (size <= 0) {
        if (size == 0 || (errno != EAGAIN && errno != EINTR)) line->ended = 1;
        free(piece);
        return;
    }
    if (line == &pair->up) {
        if (pair->answered && begins_request(piece->bytes, (size_t)size)) counters->requests++;
        pair->answered = 0;
        counters->up += (uint64_t)size;
    } else {
        pair->answered = 1;
        counters->down += (uint64_t)size;
    }
    if (line->free_at < now) line->free_at = now;
    line->free_at += (int64_t)((double)size * ns_per_byte);
    *piece = (Piece){.due = line->free_at + round_trip_ns / 2, .end = (size_t)size};
    line->under_way += (uint64_t)size;
    if (line->last) line->last->next = piece;
    else line->first = piece;
    line->last = piece;
}

/* False when the other side does not take any more for good. */
static int give_out(Line *line, int64_t now) {
    while (line->first && line->first->due <= now) {
        Piece *piece = line->first;
        ssize_t sent = send(line->to, piece->bytes + piece->begin, piece->end - piece->begin,
                            MSG_NOSIGNAL);
        if (sent < 0) return errno == EAGAIN || errno == EINTR;
        line->under_way -= (uint64_t)sent;
        piece->begin += (size_t)sent;
        if (piece->begin < piece->end) return 1;
        line->first = piece->next;
        if (!line->first) line->last = NULL;
        free(piece);
    }
    if (line->ended && !line->first && !line->shut) {
        shutdown(line->to, SHUT_WR);
        line->shut = 1;
    }
    return 1;
}

static void clear(Line *line) {
    while (line->first) {
        Piece *piece = line->first;
        line->first = piece->next;
        free(piece);
    }
}

static void drop(int at) {
    Pair *pair = pairs[at];
    close(pair->up.from);
    close(pair->up.to);
    clear(&pair->up);
    clear(&pair->down);
    free(pair);
    pairs[at] = pairs[--pair_count];
}

static void make_ready(int fd) {
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static void take_connection(int listener, int port) {
    int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) return;
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(port);
    Pair *pair = calloc(1, sizeof *pair);
    if (server < 0 || !pair || pair_count == PAIRS_MAX ||
        connect(server, (struct sockaddr *)&address, sizeof address) < 0) {
        close(client);
        if (server >= 0) close(server);
        free(pair);
        return;
    }
    make_ready(client);
    make_ready(server);
    pair->up = (Line){.from = client, .to = server, .free_at = now_ns() + round_trip_ns};
    pair->down = (Line){.from = server, .to = client};
    pair->answered = 1;
    pairs[pair_count++] = pair;
    counters->connections++;
}

/* What to wait for at a socket: bytes of the line that begins there, room for the line that ends. */
static short wanted(const Line *in, const Line *out, int64_t now) {
    short events = 0;
    if (!in->ended && in->under_way < UNDER_WAY_MAX) events |= POLLIN;
    if (out->first && out->first->due <= now) events |= POLLOUT;
    return events;
}

static void sooner(int64_t *until, const Line *line, int64_t now) {
    if (line->first && line->first->due > now && line->first->due < *until) {
        *until = line->first->due;
    }
}

static void serve(Pair *pair, int at, const struct pollfd *polled) {
    int64_t now = now_ns();
    if (polled[0].revents & (POLLIN | POLLHUP | POLLERR)) take_in(pair, &pair->up, now);
    if (polled[1].revents & (POLLIN | POLLHUP | POLLERR)) take_in(pair, &pair->down, now);
    int good = give_out(&pair->up, now) && give_out(&pair->down, now);
    /* A server that has ended the answer and hung up is done with, whatever the client says. */
    if (!good || pair->down.shut) drop(at);
}

static void run(int listener, int port) {
    static struct pollfd polled[1 + 2 * PAIRS_MAX];
    for (;;) {
        int64_t now = now_ns(), until = now + 1000000000;
        polled[0] = (struct pollfd){.fd = listener, .events = POLLIN};
        for (int at = 0; at < pair_count; at++) {
            Line *up = &pairs[at]->up, *down = &pairs[at]->down;
            polled[1 + 2 * at] = (struct pollfd){up->from, wanted(up, down, now), 0};
            polled[2 + 2 * at] = (struct pollfd){up->to, wanted(down, up, now), 0};
            /* Hung up and read to the end: poll would tell it again and again. */
            if (up->ended && !polled[1 + 2 * at].events) polled[1 + 2 * at].fd = -1;
            if (down->ended && !polled[2 + 2 * at].events) polled[2 + 2 * at].fd = -1;
            sooner(&until, up, now);
            sooner(&until, down, now);
        }
        int64_t rest = until - now;
        struct timespec wait = {.tv_sec = rest / 1000000000, .tv_nsec = rest % 1000000000};
        if (ppoll(polled, (nfds_t)(1 + 2 * pair_count), &wait, NULL) < 0 && errno != EINTR)
            die("ppoll");
        /* Backwards: a pair that is dropped is replaced by the last one, which has been served. */
        for (int at = pair_count - 1; at >= 0; at--) serve(pairs[at], at, polled + 1 + 2 * at);
        if (polled[0].revents) take_connection(listener, port);
    }
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* Small timers must be on time: 50 us of slack would be a quarter of a near round trip. */
    prctl(PR_SET_TIMERSLACK, 1000);
    round_trip_ns = atoll(arguments[2]) * 1000;
    double rate = atof(arguments[3]);
    ns_per_byte = rate > 0 ? 1e9 / rate : 0;
    int file = open(arguments[4], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || ftruncate(file, sizeof *counters) < 0) die("counters");
    counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (counters == MAP_FAILED) die("mmap");
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, size) < 0 ||
        listen(listener, 256) < 0 || getsockname(listener, (struct sockaddr *)&address, &size) < 0)
        die("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    run(listener, atoi(arguments[1]));
}
