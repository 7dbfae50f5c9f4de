/* A mock of an OpenAI-compatible model server, cheap enough (5 us per request) to stand behind a gateway under test.
 *
 * usage: mock BASE_PORT N_PORTS
 *
 * POST (any path)   a fixed chat completion, or a stream when the body has "stream": true
 * GET /counters     {"requests", "events", "accepts", "live", "ports": [requests per port]}; not counted itself
 * GET (any other)   a body that satisfies the health checks and model lists of the gateways we compare with
 *
 * A stream is steered by a marker anywhere in the request's body: "@c<events>i<interval>@", where <events> counts all
 * server-sent events including the usage event and [DONE] (default 64, at least 4), and <interval> is the time between
 * two events in microseconds (default 0: as fast as possible, one write per event).
 *
 * One thread, epoll, a heap of the streams that wait for their next event. Not a server for strangers: it trusts its
 * client and gives up on memory errors.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PORTS = 64, MAX_EVENTS = 512, FIRST_BUFFER = 4096, EVENTS_PER_TURN = 4096 };

/* ---------------------------------------------------------------- what is sent */

typedef struct {
    char *text;
    size_t length;
} Text;

#define CHUNK_HEAD                                                                                                     \
    "data: {\"id\":\"chatcmpl-7QyqpwdfhqwajicIEznoc6Q4\",\"object\":\"chat.completion.chunk\","                        \
    "\"created\":1763600000,\"model\":\"mock-model-v1\",\"choices\":["

static const char COMPLETION[] =
    "{\"id\":\"chatcmpl-7QyqpwdfhqwajicIEznoc6Q47XAyW\",\"object\":\"chat.completion\",\"created\":1763600000,"
    "\"model\":\"mock-model-v1\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_44709d6fcb\",\"choices\":["
    "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Least-active routing sends each request to the "
    "replica with the fewest requests in flight, so a slow replica naturally receives less traffic. Compared with "
    "round robin it adapts to uneven request lengths.\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,"
    "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":210,\"completion_tokens\":41,\"total_tokens\":251,"
    "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":"
    "{\"reasoning_tokens\":0,\"audio_tokens\":0}}}";

static const char MODELS[] =
    "{\"object\":\"list\",\"status\":\"ok\",\"data\":[{\"id\":\"mock-model\",\"object\":\"model\","
    "\"created\":1763600000,\"owned_by\":\"mock\"}],\"model_path\":\"mock-model\",\"is_generation\":true,"
    "\"served_model_name\":\"mock-model\"}";

static Text full_answer;
static Text models_answer;
static Text stream_start; /* head and first event in one write, as real servers do */
static Text event_token;
static Text event_finish;
static Text event_usage;
static Text event_done;

static Text format(const char *template, const char *a, const char *b)
{
    Text text;
    int length = asprintf(&text.text, template, a, b);
    if (length < 0)
        abort();
    text.length = (size_t)length;
    return text;
}

static Text answer(const char *body)
{
    char length[32];
    snprintf(length, sizeof length, "%zu", strlen(body));
    return format("HTTP/1.1 200 OK\r\nserver: mock\r\ncontent-type: application/json\r\ncontent-length: %s\r\n\r\n%s",
                  length, body);
}

static Text chunk(const char *data)
{
    char size[32];
    snprintf(size, sizeof size, "%zx", strlen(data));
    return format("%s\r\n%s\r\n", size, data);
}

static void make_texts(void)
{
    full_answer = answer(COMPLETION);
    models_answer = answer(MODELS);
    Text first = chunk(CHUNK_HEAD
                       "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n");
    stream_start = format("HTTP/1.1 200 OK\r\nserver: mock\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                          "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n%s%s",
                          first.text, "");
    free(first.text);
    event_token = chunk(CHUNK_HEAD "{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n");
    event_finish = chunk(CHUNK_HEAD "{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
    event_usage =
        chunk(CHUNK_HEAD "],\"usage\":{\"prompt_tokens\":210,\"completion_tokens\":61,\"total_tokens\":271}}\n\n");
    Text done = chunk("data: [DONE]\n\n");
    event_done = format("%s%s", done.text, "0\r\n\r\n");
    free(done.text);
}

/* ---------------------------------------------------------------- state */

typedef struct Conn {
    int fd;
    int port_index;
    int listening;
    char *buffer;
    size_t capacity;
    size_t length;
    /* the stream being answered, if any */
    int streaming;
    int close_after;
    int events_total;
    int events_sent;
    uint64_t interval_us;
    uint64_t next_us;
    int in_heap;
    size_t heap_index;
} Conn;

static int epoll_fd;
static uint64_t n_requests;
static uint64_t n_events;
static uint64_t n_accepts;
static uint64_t n_live;
static uint64_t n_on_port[MAX_PORTS];
static int n_ports;
static volatile sig_atomic_t stopping;

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

/* ---------------------------------------------------------------- heap of paced streams, soonest first */

static Conn **heap;
static size_t heap_length;
static size_t heap_capacity;

static void heap_swap(size_t a, size_t b)
{
    Conn *moved = heap[a];
    heap[a] = heap[b];
    heap[b] = moved;
    heap[a]->heap_index = a;
    heap[b]->heap_index = b;
}

static void heap_up(size_t i)
{
    while (i > 0) {
        size_t parent = (i - 1) / 2;
        if (heap[parent]->next_us <= heap[i]->next_us)
            return;
        heap_swap(i, parent);
        i = parent;
    }
}

static void heap_down(size_t i)
{
    for (;;) {
        size_t left = 2 * i + 1;
        size_t right = left + 1;
        size_t soonest = i;
        if (left < heap_length && heap[left]->next_us < heap[soonest]->next_us)
            soonest = left;
        if (right < heap_length && heap[right]->next_us < heap[soonest]->next_us)
            soonest = right;
        if (soonest == i)
            return;
        heap_swap(i, soonest);
        i = soonest;
    }
}

static void heap_push(Conn *conn)
{
    if (heap_length == heap_capacity) {
        heap_capacity = heap_capacity ? heap_capacity * 2 : 1024;
        heap = realloc(heap, heap_capacity * sizeof *heap);
        if (!heap)
            abort();
    }
    heap[heap_length] = conn;
    conn->heap_index = heap_length;
    conn->in_heap = 1;
    heap_up(heap_length++);
}

static void heap_remove(Conn *conn)
{
    if (!conn->in_heap)
        return;
    size_t i = conn->heap_index;
    conn->in_heap = 0;
    heap_length--;
    if (i == heap_length)
        return;
    heap[i] = heap[heap_length];
    heap[i]->heap_index = i;
    heap_up(i);
    heap_down(heap[i]->heap_index);
}

/* ---------------------------------------------------------------- answering */

static void close_conn(Conn *conn)
{
    heap_remove(conn);
    close(conn->fd);
    free(conn->buffer);
    free(conn);
    n_live--;
}

/* 0, or -1 when the client is gone. Waits for room when the socket is full: rare, and then the client is the limit. */
static int send_all(Conn *conn, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(conn->fd, data, length, MSG_NOSIGNAL);
        if (sent >= 0) {
            data += sent;
            length -= (size_t)sent;
        } else if (errno == EAGAIN) {
            struct timespec pause = {0, 20000};
            nanosleep(&pause, NULL);
        } else {
            return -1;
        }
    }
    return 0;
}

static int send_text(Conn *conn, Text text)
{
    return send_all(conn, text.text, text.length);
}

/* 1 when that was the last event, 0 when more follow, -1 when the client is gone. */
static int send_next_event(Conn *conn)
{
    int left = conn->events_total - conn->events_sent;
    Text text = event_token;
    if (left == 1)
        text = event_done;
    else if (left == 2)
        text = event_usage;
    else if (left == 3)
        text = event_finish;
    if (send_text(conn, text) < 0)
        return -1;
    conn->events_sent++;
    n_events++;
    return conn->events_sent == conn->events_total;
}

static int start_stream(Conn *conn)
{
    if (send_text(conn, stream_start) < 0)
        return -1;
    conn->events_sent = 1;
    n_events++;
    if (conn->interval_us > 0) {
        conn->streaming = 1;
        conn->next_us = now_us() + conn->interval_us;
        heap_push(conn);
        return 0;
    }
    int last = 0;
    while (last == 0)
        last = send_next_event(conn);
    return last < 0 ? -1 : 0;
}

static int send_counters(Conn *conn)
{
    char body[4096];
    int length = snprintf(body, sizeof body, "{\"requests\":%lu,\"events\":%lu,\"accepts\":%lu,\"live\":%lu,\"ports\":[",
                          (unsigned long)n_requests, (unsigned long)n_events, (unsigned long)n_accepts,
                          (unsigned long)n_live);
    for (int i = 0; i < n_ports; i++)
        length += snprintf(body + length, sizeof body - (size_t)length, "%s%lu", i ? "," : "",
                           (unsigned long)n_on_port[i]);
    snprintf(body + length, sizeof body - (size_t)length, "]}");
    Text text = answer(body);
    int result = send_text(conn, text);
    free(text.text);
    return result;
}

/* ---------------------------------------------------------------- reading requests */

typedef struct {
    size_t length; /* of head and body on the wire */
    const char *body;
    size_t body_length;
    char *decoded; /* to be freed: a chunked body, put together */
    int close;
} Parsed;

/* 1 when the whole chunked body is there. */
static int decode_chunked(Conn *conn, size_t offset, Parsed *parsed)
{
    parsed->decoded = malloc(conn->length + 1);
    if (!parsed->decoded)
        abort();
    parsed->body_length = 0;
    while (offset < conn->length) {
        const char *line_end = memmem(conn->buffer + offset, conn->length - offset, "\r\n", 2);
        if (!line_end)
            break;
        size_t size = strtoul(conn->buffer + offset, NULL, 16);
        size_t start = (size_t)(line_end + 2 - conn->buffer);
        if (start + size + 2 > conn->length)
            break;
        memcpy(parsed->decoded + parsed->body_length, conn->buffer + start, size);
        parsed->body_length += size;
        offset = start + size + 2;
        if (size == 0) {
            parsed->length = offset;
            parsed->body = parsed->decoded;
            return 1;
        }
    }
    free(parsed->decoded);
    parsed->decoded = NULL;
    return 0;
}

/* 1 when a whole request is in the buffer. */
static int parse(Conn *conn, Parsed *parsed)
{
    memset(parsed, 0, sizeof *parsed);
    char *head_end = memmem(conn->buffer, conn->length, "\r\n\r\n", 4);
    if (!head_end)
        return 0;
    size_t head_length = (size_t)(head_end + 4 - conn->buffer);
    size_t content_length = 0;
    int chunked = 0;
    for (char *line = conn->buffer; line < head_end;) {
        char *newline = memchr(line, '\n', (size_t)(head_end + 2 - line));
        if (!newline)
            break;
        if (!strncasecmp(line, "content-length:", 15))
            content_length = strtoul(line + 15, NULL, 10);
        else if (!strncasecmp(line, "transfer-encoding:", 18))
            chunked = 1;
        else if (!strncasecmp(line, "connection:", 11) && memmem(line, (size_t)(newline - line), "close", 5))
            parsed->close = 1;
        line = newline + 1;
    }
    if (chunked)
        return decode_chunked(conn, head_length, parsed);
    if (conn->length < head_length + content_length)
        return 0;
    parsed->length = head_length + content_length;
    parsed->body = conn->buffer + head_length;
    parsed->body_length = content_length;
    return 1;
}

static int contains(const Parsed *parsed, const char *needle)
{
    return memmem(parsed->body, parsed->body_length, needle, strlen(needle)) != NULL;
}

static void read_marker(Conn *conn, const Parsed *parsed)
{
    int events = 64;
    unsigned long interval = 0;
    const char *marker = memmem(parsed->body, parsed->body_length, "@c", 2);
    if (marker) {
        char text[48] = {0}; /* the body is not a C string */
        size_t rest = (size_t)(parsed->body + parsed->body_length - marker);
        memcpy(text, marker, rest < sizeof text - 1 ? rest : sizeof text - 1);
        sscanf(text, "@c%di%lu@", &events, &interval);
    }
    conn->events_total = events < 4 ? 4 : events;
    conn->interval_us = interval;
}

/* Answer every whole request in the buffer; stops at a paced stream. -1: close the connection. */
static int answer_requests(Conn *conn)
{
    Parsed parsed;
    while (!conn->streaming && conn->length > 0 && parse(conn, &parsed)) {
        int post = conn->buffer[0] == 'P';
        int counters = !post && !strncmp(conn->buffer, "GET /counters ", 14);
        int stream = post && (contains(&parsed, "\"stream\":true") || contains(&parsed, "\"stream\": true"));
        if (stream)
            read_marker(conn, &parsed);
        if (post) {
            n_requests++;
            n_on_port[conn->port_index]++;
        }
        free(parsed.decoded);
        memmove(conn->buffer, conn->buffer + parsed.length, conn->length - parsed.length);
        conn->length -= parsed.length;

        int failed;
        if (stream)
            failed = start_stream(conn);
        else if (counters)
            failed = send_counters(conn);
        else
            failed = send_text(conn, post ? full_answer : models_answer);
        if (failed < 0)
            return -1;
        conn->close_after = parsed.close;
        if (parsed.close && !conn->streaming)
            return -1;
    }
    return 0;
}

static int read_conn(Conn *conn)
{
    for (;;) {
        if (conn->length == conn->capacity) {
            conn->capacity *= 2;
            conn->buffer = realloc(conn->buffer, conn->capacity);
            if (!conn->buffer)
                abort();
        }
        ssize_t received = recv(conn->fd, conn->buffer + conn->length, conn->capacity - conn->length, 0);
        if (received > 0) {
            conn->length += (size_t)received;
            if (conn->length < conn->capacity)
                return answer_requests(conn);
        } else if (received < 0 && errno == EAGAIN) {
            return answer_requests(conn);
        } else {
            return -1;
        }
    }
}

/* ---------------------------------------------------------------- the loop */

static Conn *watch(int fd, int port_index)
{
    Conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        abort();
    conn->fd = fd;
    conn->port_index = port_index;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = conn};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    return conn;
}

static void accept_all(Conn *listener)
{
    for (;;) {
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0)
            return;
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Conn *conn = watch(fd, listener->port_index);
        conn->capacity = FIRST_BUFFER;
        conn->buffer = malloc(conn->capacity);
        if (!conn->buffer)
            abort();
        n_accepts++;
        n_live++;
    }
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 8192) < 0) {
        fprintf(stderr, "mock: cannot listen on port %d: %s\n", port, strerror(errno));
        exit(1);
    }
    return fd;
}

static void send_what_is_due(void)
{
    uint64_t now = now_us();
    /* a bound, so that new connections are not starved by a late crowd */
    for (int turn = 0; turn < EVENTS_PER_TURN && heap_length > 0 && heap[0]->next_us <= now; turn++) {
        Conn *conn = heap[0];
        int last = send_next_event(conn);
        if (last < 0) {
            close_conn(conn);
        } else if (last) {
            heap_remove(conn);
            conn->streaming = 0;
            if (conn->close_after || answer_requests(conn) < 0)
                close_conn(conn);
        } else {
            conn->next_us += conn->interval_us;
            heap_down(0);
        }
    }
}

static void arm(int timer_fd, uint64_t at_us)
{
    struct itimerspec when = {.it_value = {(time_t)(at_us / 1000000u), (long)(at_us % 1000000u * 1000u)}};
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void on_signal(int number)
{
    (void)number;
    stopping = 1;
}

int main(int argc, char **argv)
{
    if (argc != 3 || (n_ports = atoi(argv[2])) < 1 || n_ports > MAX_PORTS) {
        fprintf(stderr, "usage: mock BASE_PORT N_PORTS (at most %d)\n", MAX_PORTS);
        return 2;
    }
    struct sigaction stop = {.sa_handler = on_signal};
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    make_texts();
    epoll_fd = epoll_create1(0);
    for (int i = 0; i < n_ports; i++)
        watch(listen_on(atoi(argv[1]) + i), i)->listening = 1;
    int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    Conn *timer = watch(timer_fd, 0);
    uint64_t armed = 0;

    struct epoll_event events[MAX_EVENTS];
    while (!stopping) {
        if (heap_length > 0 && heap[0]->next_us != armed) {
            armed = heap[0]->next_us;
            arm(timer_fd, armed);
        }
        int n = epoll_wait(epoll_fd, events, MAX_EVENTS, -1);
        for (int i = 0; i < n; i++) {
            Conn *conn = events[i].data.ptr;
            if (conn == timer) {
                uint64_t expirations;
                if (read(timer_fd, &expirations, sizeof expirations) > 0)
                    armed = 0;
            } else if (conn->listening) {
                accept_all(conn);
            } else if (read_conn(conn) < 0) {
                close_conn(conn);
            }
        }
        send_what_is_due();
    }
    return 0;
}
