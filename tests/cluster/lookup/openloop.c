/*
 * Asks a DNS server at a constant rate, whatever it answers, and reports what went unanswered and how long it was
 * silent: an open loop, like the load of many users. No query waits for another.
 *
 *     openloop SERVER[:PORT] NAME [--rate N] [--timeout-ms T] [--seconds S] [--kept N] [--quiet N] [--kept-rate N]
 *
 *     --rate        lookups a second (1000), each on a socket of its own. Of 20 lookups one is made over TCP; the others
 *                   in turn from connected UDP sockets (as glibc does) and from unconnected ones (as musl does).
 *     --timeout-ms  a query that has no answer after so long is unanswered (1000). Later ones are sent on time.
 *     --seconds     for how long (until SIGTERM).
 *     --kept        connected UDP sockets that are kept (0), each asked --kept-rate times a second (10).
 *     --quiet       the same, but after its first answer each of these sockets is asked nothing until SIGUSR1.
 *
 * It prints the line "asking" as soon as a lookup and the first query of every kept socket were answered, and one line
 * of JSON at the end, also after SIGTERM, when the queries under way are answered or unanswered:
 *
 *     {"seconds":X,"late_ms":X,"lookups":{...},"udp":{...},"udp_connected":{...},"tcp":{...},"kept":{...},"quiet":{...}}
 *
 * `lookups` is the sum of the next three. Each of them has
 *     sent, answered     numbers of queries. An answer comes from the server that was asked, has the query's id and
 *                        question, and the code NOERROR or NXDOMAIN. Other datagrams are ignored.
 *     unanswered         sent - answered, which is the sum of `reasons`
 *     reasons            reason -> number: "timeout", an errno by its name, "rcode N", "closed" (TCP, before an answer)
 *     longest_silence_ms the longest time in which queries were due and none was answered. A silence begins when the
 *                        first query since the last answer is sent, and ends with the next answer, or when the
 *                        program stops sending. So steady answers give the latency of a lookup, and time in which
 *                        nothing is asked is no silence. Of kept sockets: the longest of any one socket.
 *     slowest_ms         the longest time from a query to its answer
 * `kept` and `quiet` also have
 *     longest_unnoticed_ms   like the silence of one socket, but an error ends it, too: how long the program had neither
 *                            an answer nor an error
 *     slowest_recovery_ms    the longest time from an error of a socket to its next answer. As nginx and HAProxy do, the
 *                            program closes a socket that has an error, and opens another with the next query.
 *     silent                 the number of sockets whose last query was not answered when the program stopped
 *
 * `late_ms`: how late the latest query was sent. When it is more than a few milliseconds, the machine is too busy for
 * this program, and a part of the silence is its own.
 *
 * Exit code 0, whatever was lost; 1 if the program itself failed; 2 for wrong usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "dns.h"

/* Why a query has no answer: an errno, or one of these. */
enum { RCODE = 256, TIMEOUT = RCODE + 16, CLOSED, REASONS };

/* What an event of epoll is about, in the upper byte of its data; the rest is the number of a query or kept socket. */
enum { QUERY, KEPT, TIMER, SIGNAL };

#define KIND_SHIFT 56
#define NUMBER ((UINT64_C(1) << KIND_SHIFT) - 1)

enum group { UDP, UDP_CONNECTED, TCP, BUSY, QUIET, LOOKUPS, GROUPS };

static const char *const group_names[GROUPS] = {"udp", "udp_connected", "tcp", "kept", "quiet", "lookups"};

static const int64_t SECOND = 1000000000;

/* Times are CLOCK_MONOTONIC, in nanoseconds; 0 stands for "none". */
struct silence {
    int64_t since, longest;
};

struct counts {
    long sent, answered, reasons[REASONS];
    int64_t slowest, slowest_recovery;
    struct silence silence; /* of lookups; each kept socket has its own */
};

/* A socket that is kept. */
struct kept {
    enum group group;
    int fd; /* -1 after an error, until its next query */
    int64_t due, failed_at;
    struct silence silence, unnoticed;
    bool answered; /* its last query that was settled */
};

/* A query under way. A lookup's has a socket of its own. */
struct query {
    bool open, connecting;
    enum group group;
    uint16_t id;
    int fd;
    struct kept *socket; /* NULL for a lookup */
    int64_t sent_at;
    size_t received;
    uint8_t message[TCP_LENGTH + MAX_MESSAGE]; /* of TCP, as far as it has come */
};

static struct {
    struct server server;
    struct dns_query query;
    double rate, kept_rate, seconds;
    int64_t timeout;
    int busy, quiet;
} options = {.rate = 1000, .kept_rate = 10, .seconds = -1, .timeout = SECOND};

static struct counts counts[GROUPS];
static struct kept *sockets;
static int socket_count;
/* A ring: the query n is queries[n % room]. From `first` on some are not settled; `next` is the next to be sent. All
 * have the same time-out, so they run out in this order. */
static struct query *queries;
static uint64_t room, first, next;
static uint64_t lookups_sent;
static int epoll_fd, timer_fd, signal_fd;
static int64_t began_at, ended_at, latest;
static bool stopping, quiet_are_asked;

static int64_t now_ns(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND + now.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void raise_to(int64_t *longest, int64_t time) {
    if (time > *longest)
        *longest = time;
}

static void begin_silence(struct silence *silence, int64_t now) {
    if (!silence->since)
        silence->since = now;
}

static void end_silence(struct silence *silence, int64_t now) {
    if (silence->since)
        raise_to(&silence->longest, now - silence->since);
    silence->since = 0;
}

static void watch(int fd, uint32_t events, uint64_t kind, uint64_t number, int operation) {
    struct epoll_event event = {.events = events, .data.u64 = kind << KIND_SHIFT | number};

    if (epoll_ctl(epoll_fd, operation, fd, &event))
        die("epoll_ctl");
}

/* The query is over, and so is the socket of a lookup. */
static void settle(struct query *query) {
    query->open = false;
    if (!query->socket)
        close(query->fd);
}

static int64_t kept_interval(void) {
    return (int64_t)(1e9 / options.kept_rate);
}

static void fail(struct query *query, int reason) {
    struct kept *socket = query->socket;

    counts[query->group].reasons[reason]++;
    if (socket) {
        socket->answered = false;
        if (socket->due == INT64_MAX) /* its first query was lost, and it has no other one */
            socket->due = now_ns() + kept_interval();
    }
    settle(query);
}

/* A kept socket has an error: none of its queries under way can be answered. */
static void fail_kept(struct kept *socket, int error) {
    int64_t now = now_ns();

    for (uint64_t each = first; each < next; each++) {
        struct query *query = &queries[each % room];

        if (query->open && query->socket == socket)
            fail(query, error);
    }
    end_silence(&socket->unnoticed, now);
    if (!socket->failed_at)
        socket->failed_at = now;
    close(socket->fd);
    socket->fd = -1;
}

static void take_reply(struct query *query, const uint8_t *message) {
    struct counts *count = &counts[query->group];
    struct kept *socket = query->socket;
    int64_t now = now_ns();
    int code = failure_code(message);

    if (code) {
        fail(query, RCODE + code);
        return;
    }
    count->answered++;
    raise_to(&count->slowest, now - query->sent_at);
    if (socket) {
        end_silence(&socket->silence, now);
        end_silence(&socket->unnoticed, now);
        if (socket->failed_at)
            raise_to(&count->slowest_recovery, now - socket->failed_at);
        socket->failed_at = 0;
        socket->answered = true;
    } else {
        end_silence(&count->silence, now);
        end_silence(&counts[LOOKUPS].silence, now);
    }
    settle(query);
}

static int new_socket(int type) {
    int fd = socket(options.server.address.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        die("socket");
    return fd;
}

static int connect_to_server(int fd) {
    return connect(fd, (const struct sockaddr *)&options.server.address, options.server.length);
}

static struct query *new_query(enum group group, struct kept *socket, int64_t due) {
    struct query *query = &queries[next % room];
    int64_t now = now_ns();

    query->open = true;
    query->connecting = false;
    query->group = group;
    query->socket = socket;
    query->id = (uint16_t)(next * 40503 + 1); /* odd, so that 65,536 in a row differ */
    query->sent_at = now;
    query->received = 0;
    next++;
    set_id(&options.query, query->id);
    raise_to(&latest, now - due);
    counts[group].sent++;
    return query;
}

static void send_lookup(int64_t due) {
    enum group group = lookups_sent % 20 == 19 ? TCP : lookups_sent % 2 ? UDP_CONNECTED : UDP;
    struct query *query = new_query(group, NULL, due);
    const uint8_t *bytes = options.query.bytes + TCP_LENGTH;
    size_t length = options.query.length;
    ssize_t done;

    lookups_sent++;
    begin_silence(&counts[group].silence, query->sent_at);
    begin_silence(&counts[LOOKUPS].silence, query->sent_at);
    query->fd = new_socket(group == TCP ? SOCK_STREAM : SOCK_DGRAM);
    if (group == UDP) {
        const struct sockaddr *address = (const struct sockaddr *)&options.server.address;

        done = sendto(query->fd, bytes, length, 0, address, options.server.length);
    } else {
        done = connect_to_server(query->fd);
        query->connecting = group == TCP && done && errno == EINPROGRESS;
        if (query->connecting)
            done = 0;
        else if (!done) /* a connection is never made at once but to the machine itself */
            done = group == TCP ? send(query->fd, options.query.bytes, TCP_LENGTH + length, MSG_NOSIGNAL)
                                : send(query->fd, bytes, length, 0);
    }
    if (done < 0)
        fail(query, errno);
    else
        watch(query->fd, query->connecting ? EPOLLOUT : EPOLLIN, QUERY, next - 1, EPOLL_CTL_ADD);
}

static void send_kept(struct kept *socket, int64_t due) {
    struct query *query = new_query(socket->group, socket, due);

    begin_silence(&socket->silence, query->sent_at);
    begin_silence(&socket->unnoticed, query->sent_at);
    if (socket->fd < 0) {
        socket->fd = new_socket(SOCK_DGRAM);
        watch(socket->fd, EPOLLIN, KEPT, (uint64_t)(socket - sockets), EPOLL_CTL_ADD);
        if (connect_to_server(socket->fd)) {
            fail_kept(socket, errno);
            return;
        }
    }
    if (send(socket->fd, options.query.bytes + TCP_LENGTH, options.query.length, 0) < 0)
        fail_kept(socket, errno);
}

static void receive_udp(struct query *query) {
    uint8_t message[MAX_MESSAGE];
    struct sockaddr_storage from;
    socklen_t from_length = sizeof(from);
    ssize_t length = recvfrom(query->fd, message, sizeof(message), 0, (struct sockaddr *)&from, &from_length);

    if (length < 0 && errno != EAGAIN)
        fail(query, errno);
    else if (length >= 0 && same_address(&from, &options.server.address) &&
             replies_to(&options.query, query->id, message, (size_t)length))
        take_reply(query, message);
}

static void receive_tcp(struct query *query, uint64_t number) {
    ssize_t length;

    if (query->connecting) {
        int error = 0;
        socklen_t error_length = sizeof(error);

        getsockopt(query->fd, SOL_SOCKET, SO_ERROR, &error, &error_length);
        set_id(&options.query, query->id);
        /* An empty send buffer takes the whole query. */
        if (!error && send(query->fd, options.query.bytes, TCP_LENGTH + options.query.length, MSG_NOSIGNAL) < 0)
            error = errno;
        query->connecting = false;
        if (error)
            fail(query, error);
        else
            watch(query->fd, EPOLLIN, QUERY, number, EPOLL_CTL_MOD);
        return;
    }
    length = recv(query->fd, query->message + query->received, sizeof(query->message) - query->received, 0);
    if (length <= 0) {
        if (!length || errno != EAGAIN)
            fail(query, length ? errno : CLOSED);
        return;
    }
    query->received += (size_t)length;
    if (query->received >= TCP_LENGTH + options.query.length &&
        query->received >= TCP_LENGTH + (size_t)(query->message[0] << 8 | query->message[1]) &&
        replies_to(&options.query, query->id, query->message + TCP_LENGTH, query->received - TCP_LENGTH))
        take_reply(query, query->message + TCP_LENGTH);
}

static void receive_kept(struct kept *socket) {
    uint8_t message[MAX_MESSAGE];

    while (socket->fd >= 0) {
        ssize_t length = recv(socket->fd, message, sizeof(message), 0);

        if (length < 0) {
            if (errno != EAGAIN)
                fail_kept(socket, errno);
            return;
        }
        for (uint64_t each = next; each-- > first;) {
            struct query *query = &queries[each % room];

            if (query->open && query->socket == socket &&
                replies_to(&options.query, query->id, message, (size_t)length)) {
                take_reply(query, message);
                break;
            }
        }
    }
}

/* When the next lookup is due. Counted from the start, so that the rate has no drift. */
static int64_t lookup_due(void) {
    return options.rate > 0 ? began_at + (int64_t)((double)lookups_sent / options.rate * 1e9) : INT64_MAX;
}

/* Sends what is due; returns when more will be. */
static int64_t send_due(void) {
    int64_t due, soonest;

    while ((due = lookup_due()) <= now_ns() && next - first < room)
        send_lookup(due);
    soonest = due;
    for (int i = 0; i < socket_count; i++) {
        struct kept *socket = &sockets[i];

        if (socket->due <= now_ns() && next - first < room) {
            int64_t was_due = socket->due;

            socket->due = socket->group == QUIET && !quiet_are_asked ? INT64_MAX : was_due + kept_interval();
            send_kept(socket, was_due);
        }
        if (socket->due < soonest)
            soonest = socket->due;
    }
    return soonest;
}

/* Returns when the oldest query under way will have timed out. */
static int64_t time_out(void) {
    int64_t now = now_ns();

    for (; first < next; first++) {
        struct query *query = &queries[first % room];

        if (query->open && query->sent_at + options.timeout > now)
            return query->sent_at + options.timeout;
        if (query->open)
            fail(query, TIMEOUT);
    }
    return INT64_MAX;
}

/* Prints "asking" once the load has begun, for whoever started us. */
static void say_asking(void) {
    static bool said;

    if (said || (options.rate > 0 && !counts[UDP].answered && !counts[UDP_CONNECTED].answered))
        return;
    for (int i = 0; i < socket_count; i++)
        if (!sockets[i].answered)
            return;
    puts("asking");
    fflush(stdout);
    said = true;
}

static void stop(void) {
    ended_at = now_ns();
    stopping = true;
    for (enum group group = 0; group < GROUPS; group++)
        end_silence(&counts[group].silence, ended_at);
    for (int i = 0; i < socket_count; i++) {
        end_silence(&sockets[i].silence, ended_at);
        end_silence(&sockets[i].unnoticed, ended_at);
    }
}

static void take_signal(void) {
    struct signalfd_siginfo info;

    if (read(signal_fd, &info, sizeof(info)) != sizeof(info))
        die("signalfd");
    if (info.ssi_signo != SIGUSR1) {
        if (!stopping)
            stop();
        return;
    }
    quiet_are_asked = true;
    for (int i = 0; i < socket_count; i++)
        if (sockets[i].due == INT64_MAX) /* one after the other */
            sockets[i].due = now_ns() + (int64_t)(1e9 / options.kept_rate * i / socket_count);
}

static void take_event(uint64_t kind, uint64_t number) {
    uint64_t expirations;

    if (kind == KEPT)
        receive_kept(&sockets[number]);
    else if (kind == SIGNAL)
        take_signal();
    else if (kind == TIMER && read(timer_fd, &expirations, sizeof(expirations)) < 0 && errno != EAGAIN)
        die("timerfd");
    else if (kind == QUERY && number >= first && queries[number % room].open) {
        struct query *query = &queries[number % room];

        if (query->group == TCP)
            receive_tcp(query, number);
        else
            receive_udp(query);
    }
}

static void ask(void) {
    int64_t until = options.seconds >= 0 ? began_at + (int64_t)(options.seconds * 1e9) : INT64_MAX;

    for (;;) {
        struct itimerspec timer = {0};
        struct epoll_event events[256];
        int64_t soonest = INT64_MAX, timed_out;
        int count;

        if (!stopping && now_ns() >= until)
            stop();
        timed_out = time_out();
        if (stopping && first == next)
            return;
        if (!stopping)
            soonest = send_due();
        if (timed_out < soonest)
            soonest = timed_out;
        if (until < soonest && !stopping)
            soonest = until;
        timer.it_value.tv_sec = soonest / SECOND;
        timer.it_value.tv_nsec = soonest % SECOND;
        timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &timer, NULL);
        count = epoll_wait(epoll_fd, events, sizeof(events) / sizeof(*events), -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++)
            take_event(events[i].data.u64 >> KIND_SHIFT, events[i].data.u64 & NUMBER);
        say_asking();
    }
}

static void print_reason(int reason) {
    static const struct {
        int error;
        const char *name;
    } names[] = {{EPERM, "EPERM"},
                 {EINVAL, "EINVAL"},
                 {EPIPE, "EPIPE"},
                 {EADDRNOTAVAIL, "EADDRNOTAVAIL"},
                 {EDESTADDRREQ, "EDESTADDRREQ"},
                 {ENETDOWN, "ENETDOWN"},
                 {ENETUNREACH, "ENETUNREACH"},
                 {EHOSTUNREACH, "EHOSTUNREACH"},
                 {ECONNABORTED, "ECONNABORTED"},
                 {ECONNRESET, "ECONNRESET"},
                 {ECONNREFUSED, "ECONNREFUSED"},
                 {TIMEOUT, "timeout"},
                 {CLOSED, "closed"}};

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (names[i].error == reason) {
            printf("\"%s\"", names[i].name);
            return;
        }
    printf(reason < RCODE ? "\"errno %d\"" : "\"rcode %d\"", reason < RCODE ? reason : reason - RCODE);
}

static double ms(int64_t ns) {
    return (double)ns / 1e6;
}

static void report_group(enum group group) {
    const struct counts *count = &counts[group];
    const char *separator = "";

    printf(",\"%s\":{\"sent\":%ld,\"answered\":%ld,\"unanswered\":%ld,\"reasons\":{", group_names[group], count->sent,
           count->answered, count->sent - count->answered);
    for (int reason = 0; reason < REASONS; reason++)
        if (count->reasons[reason]) {
            printf("%s", separator);
            print_reason(reason);
            printf(":%ld", count->reasons[reason]);
            separator = ",";
        }
    printf("},\"slowest_ms\":%.3f", ms(count->slowest));
}

static void report_lookups(enum group group) {
    report_group(group);
    printf(",\"longest_silence_ms\":%.3f}", ms(counts[group].silence.longest));
}

static void report_kept(enum group group) {
    int64_t silence = 0, unnoticed = 0;
    int silent = 0;

    for (int i = 0; i < socket_count; i++) {
        struct kept *socket = &sockets[i];

        if (socket->group != group)
            continue;
        raise_to(&silence, socket->silence.longest);
        raise_to(&unnoticed, socket->unnoticed.longest);
        silent += !socket->answered;
    }
    report_group(group);
    printf(",\"longest_silence_ms\":%.3f,\"longest_unnoticed_ms\":%.3f,\"slowest_recovery_ms\":%.3f,\"silent\":%d}",
           ms(silence), ms(unnoticed), ms(counts[group].slowest_recovery), silent);
}

static void report(void) {
    struct counts *sum = &counts[LOOKUPS];

    for (enum group group = UDP; group <= TCP; group++) {
        sum->sent += counts[group].sent;
        sum->answered += counts[group].answered;
        raise_to(&sum->slowest, counts[group].slowest);
        for (int reason = 0; reason < REASONS; reason++)
            sum->reasons[reason] += counts[group].reasons[reason];
    }
    printf("{\"seconds\":%.3f,\"late_ms\":%.3f", (double)(ended_at - began_at) / 1e9, ms(latest));
    report_lookups(LOOKUPS);
    for (enum group group = UDP; group <= TCP; group++)
        report_lookups(group);
    report_kept(BUSY);
    report_kept(QUIET);
    printf("}\n");
}

static void prepare(void) {
    struct rlimit files;
    sigset_t signals;

    /* Room for the queries of two time-outs: nothing is sent late unless the program itself was stopped for long. */
    room = 1024 + (uint64_t)(2e-9 * (double)options.timeout *
                             (options.rate + options.kept_rate * (options.busy + options.quiet)));
    queries = calloc(room, sizeof(*queries));
    socket_count = options.busy + options.quiet;
    sockets = calloc((size_t)socket_count + 1, sizeof(*sockets));
    if (!queries || !sockets)
        die("calloc");
    if (getrlimit(RLIMIT_NOFILE, &files))
        die("getrlimit");
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files))
        die("setrlimit");
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    if (epoll_fd < 0 || timer_fd < 0 || signal_fd < 0)
        die("epoll, timerfd, signalfd");
    watch(timer_fd, EPOLLIN, TIMER, 0, EPOLL_CTL_ADD);
    watch(signal_fd, EPOLLIN, SIGNAL, 0, EPOLL_CTL_ADD);
    began_at = now_ns();
    for (int i = 0; i < socket_count; i++) {
        sockets[i].group = i < options.busy ? BUSY : QUIET;
        sockets[i].fd = -1;
        sockets[i].due = began_at + (int64_t)(1e9 / options.kept_rate * i / socket_count); /* spread over a period */
    }
}

static bool parse(int argc, char **argv) {
    if (argc < 3 || argc % 2 == 0 || !parse_server(argv[1], &options.server) || !make_query(argv[2], &options.query))
        return false;
    for (int i = 3; i < argc; i += 2) {
        char *end;
        double value = strtod(argv[i + 1], &end);

        if (*end || end == argv[i + 1] || value < 0)
            return false;
        if (!strcmp(argv[i], "--rate"))
            options.rate = value;
        else if (!strcmp(argv[i], "--timeout-ms"))
            options.timeout = (int64_t)(value * 1e6);
        else if (!strcmp(argv[i], "--seconds"))
            options.seconds = value;
        else if (!strcmp(argv[i], "--kept"))
            options.busy = (int)value;
        else if (!strcmp(argv[i], "--quiet"))
            options.quiet = (int)value;
        else if (!strcmp(argv[i], "--kept-rate") && value > 0)
            options.kept_rate = value;
        else
            return false;
    }
    return true;
}

int main(int argc, char **argv) {
    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: openloop SERVER[:PORT] NAME [--rate N] [--timeout-ms T] [--seconds S]\n"
                        "                [--kept N] [--quiet N] [--kept-rate N]\n");
        return 2;
    }
    prepare();
    ask();
    report();
    return 0;
}
