/* What both clients need of DNS (RFC 1035): a server's address, a query for an A record, and whether a message answers
 * it. */
#ifndef DNS_H
#define DNS_H

#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

enum { MAX_NAME = 253, HEADER = 12, MAX_MESSAGE = 1232, TCP_LENGTH = 2, TYPE_A = 1, CLASS_IN = 1, RCODE_NXDOMAIN = 3 };

struct server {
    struct sockaddr_storage address;
    socklen_t length;
};

struct dns_query {
    uint8_t bytes[TCP_LENGTH + MAX_MESSAGE]; /* as TCP carries it, behind its length */
    size_t length; /* without those two bytes */
};

/* "ADDRESS", "ADDRESS:PORT", and for IPv6 "ADDRESS" or "[ADDRESS]:PORT". */
static inline bool parse_server(const char *text, struct server *server) {
    char host[256];
    const char *port = "53", *colon = strrchr(text, ':'), *end = text + strlen(text);
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM}, *found;

    if (text[0] == '[') {
        const char *bracket = strchr(text, ']');

        if (!bracket)
            return false;
        text++;
        end = bracket;
        if (bracket[1] == ':')
            port = bracket + 2;
    } else if (colon && colon == strchr(text, ':')) {
        port = colon + 1;
        end = colon;
    }
    if ((size_t)(end - text) >= sizeof(host))
        return false;
    memcpy(host, text, (size_t)(end - text));
    host[end - text] = 0;
    if (getaddrinfo(host, port, &hints, &found))
        return false;
    memcpy(&server->address, found->ai_addr, found->ai_addrlen);
    server->length = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

static inline bool make_query(const char *name, struct dns_query *query) {
    uint8_t *at = query->bytes + TCP_LENGTH;
    static const uint8_t header[HEADER] = {0, 0, 1 /* recursion desired */, 0, 0, 1 /* one question */};

    if (strlen(name) > MAX_NAME)
        return false;
    memcpy(at, header, HEADER);
    at += HEADER;
    while (*name) {
        size_t length = strcspn(name, ".");

        if (!length || length > 63)
            return false;
        *at++ = (uint8_t)length;
        memcpy(at, name, length);
        at += length;
        name += length + (name[length] == '.');
    }
    *at++ = 0;
    *at++ = 0;
    *at++ = TYPE_A;
    *at++ = 0;
    *at++ = CLASS_IN;
    query->length = (size_t)(at - query->bytes) - TCP_LENGTH;
    query->bytes[0] = (uint8_t)(query->length >> 8);
    query->bytes[1] = (uint8_t)query->length;
    return true;
}

static inline void set_id(struct dns_query *query, uint16_t id) {
    query->bytes[TCP_LENGTH] = (uint8_t)(id >> 8);
    query->bytes[TCP_LENGTH + 1] = (uint8_t)id;
}

/* Whether a message (without TCP's length) is a reply with this id to the query's question. */
static inline bool replies_to(const struct dns_query *query, uint16_t id, const uint8_t *message, size_t length) {
    return length >= query->length && message[0] == (uint8_t)(id >> 8) && message[1] == (uint8_t)id &&
           message[2] & 0x80 /* a response */ &&
           !memcmp(message + HEADER, query->bytes + TCP_LENGTH + HEADER, query->length - HEADER);
}

/* The response code of a reply: 0 also for NXDOMAIN, which is as good an answer as any other. */
static inline int failure_code(const uint8_t *message) {
    int code = message[3] & 0x0f;

    return code == RCODE_NXDOMAIN ? 0 : code;
}

/* As resolvers do: they believe a reply only if it comes from the server that they asked. */
static inline bool same_address(const struct sockaddr_storage *one, const struct sockaddr_storage *other) {
    const struct sockaddr_in *one4 = (const void *)one, *other4 = (const void *)other;
    const struct sockaddr_in6 *one6 = (const void *)one, *other6 = (const void *)other;

    /* The port is at the same place in both. */
    if (one->ss_family != other->ss_family || one4->sin_port != other4->sin_port)
        return false;
    return one->ss_family == AF_INET ? one4->sin_addr.s_addr == other4->sin_addr.s_addr
                                     : !memcmp(&one6->sin6_addr, &other6->sin6_addr, sizeof(one6->sin6_addr));
}

#endif
