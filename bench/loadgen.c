/* An HTTP/1.1 load generator for JSON answers and server-sent events: one thread, epoll, about 5 us per request.
 *
 * usage: loadgen -p PORT -b BODY_FILE (-n REQUESTS | -d SECONDS) [options]
 *
 *   -c N          connections (1)
 *   -r RATE       open loop: this many requests per second, latencies counted from the moment each was due, so that a
 *                 slow server cannot hide by slowing us down; without it a closed loop
 *   -W N          requests before the measurement begins
 *   -s            answers are streams
 *   -e N          server-sent events that every stream must have, [DONE] included
 *   -i US         interval between events that the server keeps, for jitter
 *   -R SECONDS    open the connections over this time
 *   -w FROM,TO    count events of this window only, in seconds since the start
 *   -1            one request per connection
 *   -P PATH       /v1/chat/completions
 *   -k KEY        sent as a bearer token
 *   -H HEADER     one more header
 *
 * Prints "begun" on a line when the clock starts, and at the end one line of JSON. An answer counts as ok when its
 * status is 200 and it came whole; `bad_events` are whole streams with another number of events than -e says.
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

enum { MAX_EVENTS = 1024, HEAD_SIZE = 4096, READ_SIZE = 1 << 20, MAX_BODY = 1 << 22, MAX_RECONNECTS = 100000 };

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---------------------------------------------------------------- histogram: log-linear, 1.6 % wide, from 0.1 us */

enum { SUB = 64, BINS = 40 * SUB };

typedef struct {
    uint64_t n;
    uint64_t bins[BINS];
    uint64_t max_ns;
    double sum_ns;
} Histogram;

static void observe(Histogram *histogram, uint64_t ns)
{
    uint64_t value = ns / 100;
    size_t index = (size_t)value;
    if (value >= SUB) {
        int exponent = 63 - __builtin_clzll(value);
        index = (size_t)(exponent - 5) * SUB + ((value >> (exponent - 6)) & (SUB - 1));
    }
    if (index >= BINS)
        index = BINS - 1;
    histogram->bins[index]++;
    histogram->n++;
    histogram->sum_ns += (double)ns;
    if (ns > histogram->max_ns)
        histogram->max_ns = ns;
}

static double quantile_us(const Histogram *histogram, double q)
{
    uint64_t rank = (uint64_t)(q * (double)histogram->n);
    uint64_t seen = 0;
    for (size_t i = 0; i < BINS; i++) {
        seen += histogram->bins[i];
        if (seen > rank) {
            double value = (double)i + 0.5;
            if (i >= SUB) {
                int shift = (int)(i / SUB) - 1;
                value = (double)((uint64_t)(SUB + i % SUB) << shift) + (double)(1ull << shift) / 2;
            }
            return value / 10;
        }
    }
    return (double)histogram->max_ns / 1000;
}

static void print_histogram(const char *name, const Histogram *histogram)
{
    double mean = histogram->n ? histogram->sum_ns / (double)histogram->n / 1000 : 0;
    printf(",\"%s\":{\"n\":%lu,\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}", name,
           (unsigned long)histogram->n, mean, quantile_us(histogram, 0.5), quantile_us(histogram, 0.9),
           quantile_us(histogram, 0.99), quantile_us(histogram, 0.999), (double)histogram->max_ns / 1000);
}

/* ---------------------------------------------------------------- options and state */

static int port;
static int n_conns = 1;
static uint64_t n_wanted;
static uint64_t n_warm;
static double duration;
static double rate;
static double ramp;
static double window_from = -1;
static double window_to = -1;
static int stream;
static int events_expected = -1;
static uint64_t interval_ns;
static int once;
static const char *path = "/v1/chat/completions";
static const char *key = "none";
static const char *extra_header = "";
static const char *body_file;

typedef enum { CLOSED, CONNECTING, IDLE, HEAD, BODY } State;
typedef enum { SIZE_LINE, DATA, DATA_END, LAST_LINE } ChunkState;

typedef struct Conn {
    int fd;
    State state;
    size_t n_sent; /* of the request */
    /* the answer */
    char head[HEAD_SIZE];
    size_t head_length;
    int status;
    int close_after;
    int until_eof;
    int chunked;
    ChunkState chunk_state;
    uint64_t chunk_left;
    int64_t body_left;
    int saw_usage;
    /* lines of a stream: only the first characters of each are kept */
    char line[6];
    int line_length;
    int n_events;
    uint64_t due_at;
    uint64_t last_event_at;
    struct Conn *next_free;
} Conn;

static Histogram latency;
static Histogram first_event;
static Histogram jitter;

static uint64_t n_started;
static uint64_t n_finished;
static uint64_t n_errors;
static uint64_t n_bad_events;
static uint64_t n_usage;
static uint64_t n_events;
static uint64_t n_window_events;
static uint64_t n_bytes;
static uint64_t n_reconnects;
static uint64_t n_connect_errors;
static int last_error_status;
static char error_sample[400];

static char *request;
static size_t request_length;
static struct sockaddr_in address;
static int epoll_fd;
static uint64_t window_from_ns;
static uint64_t window_to_ns;
static uint64_t measured_from;

/* open loop: requests that are due while every connection is busy */
enum { QUEUE = 1 << 20 };
static uint64_t *due;
static uint64_t due_head;
static uint64_t due_tail;
static Conn *free_conns;

static int may_start_more(void)
{
    return !once && (n_wanted == 0 || n_started < n_wanted + n_warm);
}

/* ---------------------------------------------------------------- connections */

static void open_conn(Conn *conn)
{
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    conn->state = CONNECTING;
    conn->close_after = 0;
    if (conn->fd < 0) {
        n_connect_errors++;
        conn->state = CLOSED;
        return;
    }
    int one = 1;
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(conn->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        n_connect_errors++;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = conn};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, conn->fd, &event);
}

static void close_conn(Conn *conn)
{
    if (conn->fd >= 0)
        close(conn->fd);
    conn->fd = -1;
    conn->state = CLOSED;
}

static void reopen_conn(Conn *conn)
{
    close_conn(conn);
    if (++n_reconnects < MAX_RECONNECTS)
        open_conn(conn);
}

static void start_request(Conn *conn, uint64_t due_at)
{
    conn->due_at = due_at;
    conn->state = HEAD;
    conn->head_length = 0;
    conn->status = 0;
    conn->saw_usage = 0;
    conn->line_length = 0;
    conn->n_events = 0;
    conn->n_sent = 0;
    n_started++;
    ssize_t sent = send(conn->fd, request, request_length, MSG_NOSIGNAL);
    if (sent > 0)
        conn->n_sent = (size_t)sent;
}

static void send_rest(Conn *conn)
{
    ssize_t sent = send(conn->fd, request + conn->n_sent, request_length - conn->n_sent, MSG_NOSIGNAL);
    if (sent > 0)
        conn->n_sent += (size_t)sent;
}

/* A connection has nothing to do: give it the next request, or keep it for one. */
static void next_request(Conn *conn, uint64_t now)
{
    conn->state = IDLE;
    if (rate > 0) {
        if (due_head < due_tail) {
            start_request(conn, due[due_head++ % QUEUE]);
        } else {
            conn->next_free = free_conns;
            free_conns = conn;
        }
    } else if (may_start_more() || (once && conn->due_at == 0)) {
        start_request(conn, now);
    }
}

static void forget_free(Conn *conn)
{
    for (Conn **link = &free_conns; *link; link = &(*link)->next_free) {
        if (*link == conn) {
            *link = conn->next_free;
            return;
        }
    }
}

static void begin_measuring(uint64_t now)
{
    measured_from = now;
    memset(&latency, 0, sizeof latency);
    memset(&first_event, 0, sizeof first_event);
    memset(&jitter, 0, sizeof jitter);
    n_events = 0;
    n_bytes = 0;
}

static void finish_request(Conn *conn, uint64_t now, int broken)
{
    n_finished++;
    if (broken || conn->status != 200) {
        n_errors++;
        last_error_status = conn->status;
    } else {
        observe(&latency, now - conn->due_at);
        n_usage += (uint64_t)conn->saw_usage;
        if (stream && events_expected >= 0 && conn->n_events != events_expected)
            n_bad_events++;
    }
    if (n_warm > 0 && n_finished == n_warm)
        begin_measuring(now);
    if (broken || conn->close_after) {
        if (rate > 0 || may_start_more())
            reopen_conn(conn);
        else
            close_conn(conn);
    } else {
        next_request(conn, now);
    }
}

/* ---------------------------------------------------------------- reading answers */

static void on_event(Conn *conn, uint64_t now)
{
    conn->n_events++;
    n_events++;
    if (conn->n_events == 1) {
        observe(&first_event, now - conn->due_at);
    } else if (interval_ns > 0) {
        uint64_t gap = now - conn->last_event_at;
        observe(&jitter, gap > interval_ns ? gap - interval_ns : interval_ns - gap);
    }
    if (window_from >= 0 && now >= window_from_ns && now < window_to_ns)
        n_window_events++;
    conn->last_event_at = now;
}

static void on_payload(Conn *conn, const char *data, size_t length, uint64_t now)
{
    n_bytes += length;
    if (!stream) {
        if (memmem(data, length, "\"usage\"", 7))
            conn->saw_usage = 1;
        return;
    }
    const char *end = data + length;
    while (data < end) {
        while (conn->line_length < (int)sizeof conn->line && data < end && *data != '\n')
            conn->line[conn->line_length++] = *data++;
        const char *newline = memchr(data, '\n', (size_t)(end - data));
        const char *line_end = newline ? newline : end;
        if (!conn->saw_usage && memmem(data, (size_t)(line_end - data), "\"usage\":{", 9))
            conn->saw_usage = 1;
        if (!newline)
            return;
        if (conn->line_length >= 5 && !memcmp(conn->line, "data:", 5))
            on_event(conn, now);
        conn->line_length = 0;
        data = newline + 1;
    }
}

/* 1 when the answer's head is whole; what follows it in `data` is then left to the caller. */
static int read_head(Conn *conn, const char **data, size_t *length)
{
    size_t room = HEAD_SIZE - 1 - conn->head_length;
    size_t taken = *length < room ? *length : room;
    size_t before = conn->head_length;
    memcpy(conn->head + before, *data, taken);
    conn->head_length += taken;
    conn->head[conn->head_length] = 0;
    char *end = strstr(conn->head, "\r\n\r\n");
    if (!end)
        return 0;
    size_t used = (size_t)(end + 4 - conn->head) - before;
    *data += used;
    *length -= used;

    conn->status = conn->head_length > 9 ? atoi(conn->head + 9) : 0;
    conn->body_left = -1;
    conn->chunked = 0;
    conn->until_eof = 0;
    for (char *line = conn->head; line < end;) {
        char *newline = memchr(line, '\n', (size_t)(end + 2 - line));
        if (!newline)
            break;
        if (!strncasecmp(line, "content-length:", 15))
            conn->body_left = atoll(line + 15);
        else if (!strncasecmp(line, "transfer-encoding:", 18))
            conn->chunked = 1;
        else if (!strncasecmp(line, "connection:", 11) && memmem(line, (size_t)(newline - line), "close", 5))
            conn->close_after = 1;
        line = newline + 1;
    }
    conn->chunk_state = SIZE_LINE;
    conn->chunk_left = 0;
    if (!conn->chunked && conn->body_left < 0) {
        conn->until_eof = 1;
        conn->close_after = 1;
        conn->body_left = INT64_MAX;
    }
    conn->state = BODY;
    if (conn->status != 200 && !error_sample[0])
        snprintf(error_sample, sizeof error_sample, "%.*s", (int)*length, *data);
    return 1;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* 1 when the body is whole. */
static int read_chunked(Conn *conn, const char *data, const char *end, uint64_t now)
{
    while (data < end) {
        if (conn->chunk_state == DATA) {
            size_t there = (size_t)(end - data);
            size_t taken = there < conn->chunk_left ? there : conn->chunk_left;
            on_payload(conn, data, taken, now);
            data += taken;
            conn->chunk_left -= taken;
            if (conn->chunk_left == 0)
                conn->chunk_state = DATA_END;
            continue;
        }
        char c = *data++;
        if (conn->chunk_state == SIZE_LINE) {
            if (c == '\n')
                conn->chunk_state = conn->chunk_left ? DATA : LAST_LINE;
            else if (hex_digit(c) >= 0)
                conn->chunk_left = conn->chunk_left * 16 + (uint64_t)hex_digit(c);
        } else if (c == '\n') {
            if (conn->chunk_state == LAST_LINE)
                return 1;
            conn->chunk_state = SIZE_LINE;
        }
    }
    return 0;
}

/* 1 when the answer is whole. */
static int on_data(Conn *conn, const char *data, size_t length, uint64_t now)
{
    if (conn->state == HEAD && !read_head(conn, &data, &length))
        return 0;
    if (conn->chunked)
        return read_chunked(conn, data, data + length, now);
    size_t taken = (int64_t)length < conn->body_left ? length : (size_t)conn->body_left;
    on_payload(conn, data, taken, now);
    conn->body_left -= (int64_t)taken;
    return conn->body_left == 0;
}

static void on_closed(Conn *conn, uint64_t now)
{
    if (conn->state == BODY && conn->until_eof) {
        finish_request(conn, now, 0);
    } else if (conn->state == HEAD || conn->state == BODY) {
        finish_request(conn, now, 1);
    } else if (conn->state == IDLE) {
        forget_free(conn);
        reopen_conn(conn);
    }
}

static char read_buffer[READ_SIZE];

static void read_conn(Conn *conn)
{
    for (;;) {
        ssize_t received = recv(conn->fd, read_buffer, READ_SIZE, 0);
        if (received < 0 && errno == EAGAIN)
            return;
        uint64_t now = now_ns();
        if (received <= 0) {
            on_closed(conn, now);
            return;
        }
        if (conn->state != HEAD && conn->state != BODY)
            continue; /* bytes nobody asked for */
        if (on_data(conn, read_buffer, (size_t)received, now)) {
            finish_request(conn, now, 0);
            return; /* the next answer makes its own edge */
        }
        if (received < READ_SIZE)
            return; /* edge-triggered, but the socket is empty: more data is a new edge */
    }
}

static void on_connected(Conn *conn)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        n_connect_errors++;
        close_conn(conn);
        if (n_connect_errors < 1000)
            open_conn(conn);
        return;
    }
    next_request(conn, now_ns());
}

/* ---------------------------------------------------------------- the run */

static void read_options(int argc, char **argv)
{
    int option;
    while ((option = getopt(argc, argv, "p:c:n:d:r:b:P:k:se:i:R:w:W:H:1")) > 0) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': n_conns = atoi(optarg); break;
        case 'n': n_wanted = strtoull(optarg, NULL, 10); break;
        case 'd': duration = atof(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'b': body_file = optarg; break;
        case 'P': path = optarg; break;
        case 'k': key = optarg; break;
        case 's': stream = 1; break;
        case 'e': events_expected = atoi(optarg); break;
        case 'i': interval_ns = strtoull(optarg, NULL, 10) * 1000; break;
        case 'R': ramp = atof(optarg); break;
        case 'w': sscanf(optarg, "%lf,%lf", &window_from, &window_to); break;
        case 'W': n_warm = strtoull(optarg, NULL, 10); break;
        case 'H': extra_header = optarg; break;
        case '1': once = 1; break;
        default: exit(2);
        }
    }
    if (port == 0 || body_file == NULL || (n_wanted == 0 && duration <= 0 && !once)) {
        fprintf(stderr, "loadgen needs -p PORT, -b BODY_FILE and one of -n, -d, -1; the source begins with the rest\n");
        exit(2);
    }
    if (duration <= 0)
        duration = 120;
}

static void make_request(void)
{
    FILE *file = fopen(body_file, "rb");
    if (!file) {
        fprintf(stderr, "loadgen: cannot read %s: %s\n", body_file, strerror(errno));
        exit(2);
    }
    char *body = malloc(MAX_BODY);
    request = malloc(MAX_BODY + 4096);
    if (!body || !request)
        abort();
    size_t length = fread(body, 1, MAX_BODY, file);
    fclose(file);
    int head = snprintf(request, 4096,
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n"
                        "Content-Type: application/json\r\nAccept: application/json\r\nUser-Agent: loadgen/1.0\r\n"
                        "%s%sContent-Length: %zu\r\n\r\n",
                        path, port, key, extra_header, *extra_header ? "\r\n" : "", length);
    memcpy(request + head, body, length);
    request_length = (size_t)head + length;
    free(body);
}

static void print_result(double elapsed)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                 (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    uint64_t measured = n_finished - (n_finished > n_warm ? n_warm : 0);
    printf("{\"requests\":%lu,\"ok\":%lu,\"errors\":%lu,\"last_error_status\":%d,\"bad_events\":%lu,\"usage_seen\":%lu,"
           "\"connect_errors\":%lu,\"reconnects\":%lu,\"elapsed\":%.4f,\"rps\":%.1f,\"events\":%lu,\"window_events\":%lu,"
           "\"bytes\":%lu,\"unsent\":%lu,\"cpu_s\":%.3f",
           (unsigned long)n_finished, (unsigned long)(n_finished - n_errors), (unsigned long)n_errors,
           last_error_status, (unsigned long)n_bad_events, (unsigned long)n_usage, (unsigned long)n_connect_errors,
           (unsigned long)n_reconnects, elapsed, (double)measured / elapsed, (unsigned long)n_events,
           (unsigned long)n_window_events, (unsigned long)n_bytes, (unsigned long)(due_tail - due_head), cpu);
    print_histogram("latency_us", &latency);
    print_histogram("first_event_us", &first_event);
    print_histogram("jitter_us", &jitter);
    printf(",\"error_sample\":\"");
    for (const char *c = error_sample; *c; c++) {
        if (*c == '"' || *c == '\\')
            putchar('\\');
        if ((unsigned char)*c >= 32 && (unsigned char)*c < 127)
            putchar(*c);
    }
    printf("\"}\n");
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    make_request();
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    due = malloc(QUEUE * sizeof *due);
    Conn *conns = calloc((size_t)n_conns, sizeof *conns);
    if (!due || !conns)
        abort();
    epoll_fd = epoll_create1(0);
    int timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event timer_event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd, &timer_event);

    uint64_t start = now_ns();
    uint64_t end = start + (uint64_t)(duration * 1e9);
    measured_from = start;
    window_from_ns = start + (uint64_t)(window_from * 1e9);
    window_to_ns = start + (uint64_t)(window_to * 1e9);
    uint64_t step = rate > 0 ? (uint64_t)(1e9 / rate) : 0;
    uint64_t next_due = start + 50000000; /* the connections are open by then */
    uint64_t armed = 0;
    int n_opened = 0;
    printf("begun\n");
    fflush(stdout);

    static struct epoll_event events[MAX_EVENTS];
    for (;;) {
        uint64_t now = now_ns();
        int n_to_open = ramp > 0 ? (int)((double)(now - start) / 1e9 / ramp * n_conns) + 1 : n_conns;
        while (n_opened < n_conns && n_opened < n_to_open)
            open_conn(&conns[n_opened++]);
        while (rate > 0 && next_due <= now && (n_wanted == 0 || due_tail + n_started < n_wanted + n_warm + due_head)) {
            if (free_conns) {
                Conn *conn = free_conns;
                free_conns = conn->next_free;
                start_request(conn, next_due);
            } else if (due_tail - due_head < QUEUE) {
                due[due_tail++ % QUEUE] = next_due;
            }
            next_due += step;
        }
        if (now >= end || (n_wanted > 0 && n_finished >= n_wanted + n_warm))
            break;
        if (once && n_opened == n_conns && n_finished >= (uint64_t)n_conns)
            break;

        uint64_t wake_at = end;
        if (rate > 0 && next_due > now && next_due < wake_at)
            wake_at = next_due;
        if (n_opened < n_conns) {
            uint64_t next_open = start + (uint64_t)(ramp * 1e9 * n_opened / n_conns) + 1000;
            wake_at = next_open > now && next_open < wake_at ? next_open : wake_at;
        }
        if (wake_at != armed) {
            struct itimerspec when = {
                .it_value = {(time_t)(wake_at / 1000000000u), (long)(wake_at % 1000000000u)}};
            timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
            armed = wake_at;
        }
        int n = epoll_wait(epoll_fd, events, MAX_EVENTS, 100);
        for (int i = 0; i < n; i++) {
            Conn *conn = events[i].data.ptr;
            if (conn == NULL) {
                uint64_t expirations;
                if (read(timer_fd, &expirations, sizeof expirations) > 0)
                    armed = 0;
                continue;
            }
            if (conn->state == CONNECTING) {
                if (events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
                    on_connected(conn);
                continue;
            }
            if (conn->state >= HEAD && conn->n_sent < request_length && (events[i].events & EPOLLOUT))
                send_rest(conn);
            if (conn->fd >= 0 && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
                read_conn(conn);
        }
    }
    print_result((double)(now_ns() - measured_from) / 1e9);
    return 0;
}
