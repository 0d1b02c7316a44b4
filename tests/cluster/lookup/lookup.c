/*
 * Looks names up and counts what fails.
 *
 *     lookup NAME COUNT|forever [INTERVAL_MS]
 *         getaddrinfo() in a loop, that is the C library's resolver with its own retries:
 *         {"calls":N,"failed":N,"slowest_ms":X}
 *
 *     lookup --raw SERVER[:PORT] NAME [--proto udp|udp-connected|tcp] [--seconds S | --count N] [--timeout-ms T]
 *            [--rate N]
 *         queries for A records, each on a new socket, without retries, N a second (0, the default: one after the
 *         other). IPv6 servers are written [ADDRESS]:PORT, or ADDRESS alone. {"queries":N,"answers":N,"lost":N,
 *         "refused":N,"failed":N,"p50_ms":X,"p99_ms":X,"max_ms":X,"rate":X,"seconds":X}
 *         lost: no answer within T ms (2000 by default). refused: ECONNREFUSED. failed: any other error, or an answer
 *         whose code is neither NOERROR nor NXDOMAIN. Latencies are those of answers. With a rate, a slow answer delays
 *         later queries, which are then sent at once; none is left out.
 *
 * Prints one line of JSON at the end, also after SIGTERM. Exit code 0 if nothing failed, 1 if something did, 2 for wrong
 * usage.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "dns.h"

enum protocol { UDP, UDP_CONNECTED, TCP };

enum outcome { ANSWER, LOST, REFUSED, FAILED, OUTCOMES };

static volatile sig_atomic_t stopped;

static void stop(int signal) {
    (void)signal;
    stopped = 1;
}

static double now_ms(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void sleep_until(double when) {
    double left;

    while (!stopped && (left = when - now_ms()) > 0) {
        struct timespec pause = {(time_t)(left / 1e3), (long)((left - 1e3 * (double)(time_t)(left / 1e3)) * 1e6)};

        nanosleep(&pause, NULL);
    }
}

static int usage(void) {
    fprintf(stderr, "usage: lookup NAME COUNT|forever [INTERVAL_MS]\n"
                    "       lookup --raw SERVER[:PORT] NAME [--proto udp|udp-connected|tcp] [--seconds S|--count N]\n"
                    "              [--timeout-ms T] [--rate N]\n");
    return 2;
}

static int with_libc(int argc, char **argv) {
    bool forever = !strcmp(argv[2], "forever");
    long count = forever ? 0 : strtol(argv[2], NULL, 10);
    double interval = argc > 3 ? strtod(argv[3], NULL) : 0;
    struct addrinfo hints = {.ai_socktype = SOCK_DGRAM};
    long calls = 0, failed = 0;
    double slowest = 0;

    while (!stopped && (forever || calls < count)) {
        struct addrinfo *found = NULL;
        double began = now_ms(), took;
        int code = getaddrinfo(argv[1], NULL, &hints, &found);

        if (stopped && code) /* interrupted, not failed */
            break;
        took = now_ms() - began;
        if (took > slowest)
            slowest = took;
        calls++;
        if (code) {
            failed++;
            fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(code));
        } else {
            freeaddrinfo(found);
        }
        sleep_until(began + interval);
    }
    printf("{\"calls\":%ld,\"failed\":%ld,\"slowest_ms\":%.3f}\n", calls, failed, slowest);
    return failed > 0;
}

struct raw {
    struct server server;
    enum protocol protocol;
    int timeout_ms;
    struct dns_query query;
    uint16_t id;
};

static enum outcome outcome_of_errno(void) {
    return errno == ECONNREFUSED ? REFUSED : FAILED;
}

/* Waits until the socket is ready for `events`; ANSWER stands for "it is". */
static enum outcome await(int fd, short events, double deadline) {
    struct pollfd poll_fd = {.fd = fd, .events = events};

    for (;;) {
        double left = deadline - now_ms();
        int ready;

        if (left <= 0)
            return LOST;
        ready = poll(&poll_fd, 1, (int)left + 1);
        if (ready > 0)
            return ANSWER;
        if (ready < 0 && errno != EINTR)
            return FAILED;
    }
}

static enum outcome judge(const struct raw *raw, const uint8_t *message, size_t length) {
    return replies_to(&raw->query, raw->id, message, length) && !failure_code(message) ? ANSWER : FAILED;
}

static enum outcome ask_udp(const struct raw *raw, int fd, double deadline) {
    uint8_t message[MAX_MESSAGE];
    const uint8_t *query = raw->query.bytes + TCP_LENGTH;
    ssize_t length;
    enum outcome outcome;

    if (raw->protocol == UDP_CONNECTED) {
        if (connect(fd, (const struct sockaddr *)&raw->server.address, raw->server.length))
            return outcome_of_errno();
        length = send(fd, query, raw->query.length, 0);
    } else {
        length =
            sendto(fd, query, raw->query.length, 0, (const struct sockaddr *)&raw->server.address, raw->server.length);
    }
    if (length < 0)
        return outcome_of_errno();
    outcome = await(fd, POLLIN, deadline);
    if (outcome != ANSWER)
        return outcome;
    if (raw->protocol == UDP_CONNECTED) {
        length = recv(fd, message, sizeof(message), 0);
    } else {
        struct sockaddr_storage from;
        socklen_t from_length = sizeof(from);

        length = recvfrom(fd, message, sizeof(message), 0, (struct sockaddr *)&from, &from_length);
        if (length >= 0 && !same_address(&from, &raw->server.address))
            return FAILED;
    }
    return length < 0 ? outcome_of_errno() : judge(raw, message, (size_t)length);
}

static enum outcome ask_tcp(const struct raw *raw, int fd, double deadline) {
    uint8_t message[TCP_LENGTH + MAX_MESSAGE];
    size_t have = 0;
    enum outcome outcome;
    int error = 0;
    socklen_t error_length = sizeof(error);

    if (connect(fd, (const struct sockaddr *)&raw->server.address, raw->server.length) && errno != EINPROGRESS)
        return outcome_of_errno();
    outcome = await(fd, POLLOUT, deadline);
    if (outcome != ANSWER)
        return outcome;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &error_length);
    if (error)
        return error == ECONNREFUSED ? REFUSED : FAILED;
    /* Small enough for any empty send buffer. */
    if (send(fd, raw->query.bytes, TCP_LENGTH + raw->query.length, MSG_NOSIGNAL) < 0)
        return outcome_of_errno();
    for (;;) {
        ssize_t length;

        outcome = await(fd, POLLIN, deadline);
        if (outcome != ANSWER)
            return outcome;
        length = recv(fd, message + have, sizeof(message) - have, 0);
        if (length <= 0)
            return length ? outcome_of_errno() : FAILED;
        have += (size_t)length;
        if (have >= TCP_LENGTH && have >= TCP_LENGTH + (size_t)(message[0] << 8 | message[1]))
            return judge(raw, message + TCP_LENGTH, have - TCP_LENGTH);
    }
}

static enum outcome ask(struct raw *raw, uint16_t id) {
    int type = (raw->protocol == TCP ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = socket(raw->server.address.ss_family, type, 0);
    double deadline = now_ms() + raw->timeout_ms;
    enum outcome outcome;

    if (fd < 0)
        return FAILED;
    raw->id = id;
    set_id(&raw->query, id);
    outcome = raw->protocol == TCP ? ask_tcp(raw, fd, deadline) : ask_udp(raw, fd, deadline);
    close(fd);
    return outcome;
}

static int compare(const void *one, const void *other) {
    float difference = *(const float *)one - *(const float *)other;

    return (difference > 0) - (difference < 0);
}

static double percentile(const float *sorted, size_t count, double share) {
    return count ? (double)sorted[(size_t)(share * (double)(count - 1))] : 0;
}

static int report(const size_t counts[OUTCOMES], size_t queries, float *latencies, double seconds) {
    size_t answers = counts[ANSWER];

    qsort(latencies, answers, sizeof(*latencies), compare);
    printf("{\"queries\":%zu,\"answers\":%zu,\"lost\":%zu,\"refused\":%zu,\"failed\":%zu,"
           "\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"max_ms\":%.3f,\"rate\":%.1f,\"seconds\":%.3f}\n",
           queries, answers, counts[LOST], counts[REFUSED], counts[FAILED], percentile(latencies, answers, 0.5),
           percentile(latencies, answers, 0.99), percentile(latencies, answers, 1),
           seconds > 0 ? (double)queries / seconds : 0, seconds);
    return answers != queries;
}

static int raw_loop(struct raw *raw, double seconds, long count, double rate) {
    size_t counts[OUTCOMES] = {0}, queries = 0, room = 0;
    float *latencies = NULL;
    double began = now_ms();

    while (!stopped && (count < 0 || (long)queries < count) && (seconds < 0 || now_ms() - began < seconds * 1e3)) {
        double sent;
        enum outcome outcome;

        if (rate > 0) {
            sleep_until(began + (double)queries * 1e3 / rate);
            if (stopped)
                break;
        }
        if (counts[ANSWER] == room) {
            room = room ? 2 * room : 4096;
            latencies = realloc(latencies, room * sizeof(*latencies));
            if (!latencies)
                abort();
        }
        sent = now_ms();
        outcome = ask(raw, (uint16_t)(queries * 40503 + 1));
        if (outcome == ANSWER)
            latencies[counts[ANSWER]] = (float)(now_ms() - sent);
        counts[outcome]++;
        queries++;
    }
    return report(counts, queries, latencies, (now_ms() - began) / 1e3);
}

static int raw_main(int argc, char **argv) {
    struct raw raw = {.timeout_ms = 2000};
    double seconds = -1, rate = 0;
    long count = -1;

    if (argc < 4 || argc % 2 || !parse_server(argv[2], &raw.server) || !make_query(argv[3], &raw.query))
        return usage();
    for (int i = 4; i < argc; i += 2) {
        const char *option = argv[i], *value = argv[i + 1];

        if (!strcmp(option, "--proto") && !strcmp(value, "udp"))
            raw.protocol = UDP;
        else if (!strcmp(option, "--proto") && !strcmp(value, "udp-connected"))
            raw.protocol = UDP_CONNECTED;
        else if (!strcmp(option, "--proto") && !strcmp(value, "tcp"))
            raw.protocol = TCP;
        else if (!strcmp(option, "--seconds"))
            seconds = strtod(value, NULL);
        else if (!strcmp(option, "--count"))
            count = strtol(value, NULL, 10);
        else if (!strcmp(option, "--timeout-ms"))
            raw.timeout_ms = atoi(value);
        else if (!strcmp(option, "--rate"))
            rate = strtod(value, NULL);
        else
            return usage();
    }
    return raw_loop(&raw, seconds, count, rate);
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = stop};

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    if (argc > 1 && !strcmp(argv[1], "--raw"))
        return raw_main(argc, argv);
    return argc < 3 || argc > 4 ? usage() : with_libc(argc, argv);
}
