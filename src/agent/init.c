/* SPDX-License-Identifier: MIT */
/*
 * agent/init.c — PID 1 of a minimal guest, with the agent as its child: mounts what is missing,
 * sets the static address of QEMU's user network, finds the disk that holds the configuration,
 * reaps, and powers off. What goes wrong is said on the console and lived with, so that a guest
 * that is not as expected can still be looked at.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "agent/agent.h"
#include "base/log.h"
#include "base/str.h"

#define SEED_SERIAL "chela-seed"
#define ADDRESS     "10.0.2.15"
#define NETMASK     "255.255.255.0"
#define GATEWAY     "10.0.2.2"
#define BUTTONS_MAX 8
#define LOOKS_MAX   30    /* for a power button, which may come late */
#define STOP_MS     15000 /* that the agent has to end */
#define REST_MS     1000  /* before it is started again */

#define EXT4_RESIZE _IOW('f', 16, uint64_t) /* EXT4_IOC_RESIZE_FS is in no header of user space */

struct init {
    pid_t agent;
    int signals;
    struct pollfd polls[1 + BUTTONS_MAX]; /* the signals, the buttons */
    nfds_t n_polls;
    int looks;
    bool ending;
    uint64_t deadline_ms; /* of the agent's end, or of its next start; DEADLINE_NONE */
};

static void complain(const char *what)
{
    log_warn("init", "failed", LOG_STR(what), "error", LOG_STR(strerror(errno)));
}

/* --- file systems --- */

/* clang-format off */
static const struct { const char *type, *at, *options; unsigned long flags; } mounts[] = {
    { "proc",     "/proc",    "",          MS_NOSUID | MS_NODEV | MS_NOEXEC },
    { "sysfs",    "/sys",     "",          MS_NOSUID | MS_NODEV | MS_NOEXEC },
    { "devtmpfs", "/dev",     "mode=0755", MS_NOSUID },
    { "devpts",   "/dev/pts", "mode=0620,ptmxmode=0666", MS_NOSUID | MS_NOEXEC },
    { "tmpfs",    "/dev/shm", "mode=1777", MS_NOSUID | MS_NODEV },
    { "tmpfs",    "/run",     "mode=0755", MS_NOSUID | MS_NODEV },
    { "tmpfs",    "/tmp",     "mode=1777", MS_NOSUID | MS_NODEV },
};
/* clang-format on */

/* Is something mounted there: another device than its parent's? */
static bool is_mounted(const char *path)
{
    AUTO(free) char *up = xasprintf("%s/..", path);
    struct stat here, above;

    return stat(path, &here) == 0 && stat(up, &above) == 0 && here.st_dev != above.st_dev;
}

static void mount_all(void)
{
    for (size_t i = 0; i < LEN(mounts); i++) {
        if (mkdir(mounts[i].at, 0755) < 0 && errno != EEXIST)
            complain(mounts[i].at);
        if (!is_mounted(mounts[i].at) && mount(mounts[i].type, mounts[i].at, mounts[i].type,
                                               mounts[i].flags, mounts[i].options) < 0)
            complain(mounts[i].at);
    }
}

static int read_line(const char *path, char *out, size_t size)
{
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

    if (n < 0)
        return -errno;
    out[n] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return 0;
}

/* The disk may have grown since its file system was made. */
static void grow_root(void)
{
    AUTO(close_fd) int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char path[64], text[32];
    struct statvfs fs;
    struct stat st;
    uint64_t blocks;

    if (fd < 0 || fstat(fd, &st) < 0 || fstatvfs(fd, &fs) < 0)
        return;
    fmt_z(path, sizeof(path), "/sys/dev/block/%u:%u/size", major(st.st_dev), minor(st.st_dev));
    if (read_line(path, text, sizeof(text)) < 0)
        return; /* the root is no disk */
    blocks = strtoull(text, NULL, 10) * 512 / fs.f_bsize;
    if (blocks > fs.f_blocks + fs.f_blocks / 10 && ioctl(fd, EXT4_RESIZE, &blocks) < 0)
        complain("grow the root");
}

/* --- network --- */

static void set_sin(struct sockaddr *sa, const char *text)
{
    struct sockaddr_in in = { .sin_family = AF_INET };

    inet_pton(AF_INET, text, &in.sin_addr);
    memcpy(sa, &in, sizeof(in));
}

static void up(int fd, const char *name, const char *address, const char *netmask)
{
    struct ifreq req = { 0 };

    fmt_z(req.ifr_name, sizeof(req.ifr_name), "%s", name);
    set_sin(&req.ifr_addr, address);
    if (ioctl(fd, SIOCSIFADDR, &req) < 0)
        complain(name);
    set_sin(&req.ifr_netmask, netmask);
    if (ioctl(fd, SIOCSIFNETMASK, &req) < 0)
        complain(name);
    req.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(fd, SIOCSIFFLAGS, &req) < 0)
        complain(name);
}

static void add_gateway(int fd)
{
    struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY };

    set_sin(&route.rt_dst, "0.0.0.0");
    set_sin(&route.rt_genmask, "0.0.0.0");
    set_sin(&route.rt_gateway, GATEWAY);
    if (ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST)
        complain("route");
}

/* The first one that is an Ethernet. */
static bool find_ethernet(char *out, size_t size)
{
    DIR *dir = opendir("/sys/class/net");
    bool found = false;
    char path[320], type[16];

    for (struct dirent *d = dir ? readdir(dir) : NULL; d && !found; d = readdir(dir)) {
        if (d->d_name[0] == '.' || strlen(d->d_name) >= size)
            continue;
        fmt_z(path, sizeof(path), "/sys/class/net/%s/type", d->d_name);
        found = read_line(path, type, sizeof(type)) == 0 && strcmp(type, "1") == 0;
        if (found)
            fmt_z(out, size, "%s", d->d_name);
    }
    if (dir)
        closedir(dir);
    return found;
}

static void set_network(bool is_guest)
{
    AUTO(close_fd) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char name[IFNAMSIZ];

    if (fd < 0) {
        complain("network");
        return;
    }
    up(fd, "lo", "127.0.0.1", "255.0.0.0");
    if (is_guest && find_ethernet(name, sizeof(name))) {
        up(fd, name, ADDRESS, NETMASK);
        add_gateway(fd);
    }
}

/* --- configuration --- */

static bool find_seed(char *out, size_t size)
{
    DIR *dir = opendir("/sys/class/block");
    bool found = false;
    char path[320], serial[64];

    for (struct dirent *d = dir ? readdir(dir) : NULL; d && !found; d = readdir(dir)) {
        if (d->d_name[0] == '.' || strlen(d->d_name) + 6 > size)
            continue;
        fmt_z(path, sizeof(path), "/sys/class/block/%s/serial", d->d_name);
        found = read_line(path, serial, sizeof(serial)) == 0 && strcmp(serial, SEED_SERIAL) == 0;
        if (found)
            fmt_z(out, size, "/dev/%s", d->d_name);
    }
    if (dir)
        closedir(dir);
    return found;
}

static void configure(void)
{
    struct agent_conf conf;
    struct err e;

    setenv("CHELA_AGENT_INIT", "1", 1);
    setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 0);
    setenv("HOME", "/root", 0);
    if (agent_conf_load(&conf, &e) < 0) {
        log_error("init: no configuration", "error", LOG_ERR(&e));
        return;
    }
    if (sethostname(conf.id, strlen(conf.id)) < 0)
        complain("hostname");
    agent_conf_done(&conf);
}

/* --- the agent --- */

static void start_agent(struct init *in)
{
    sigset_t none;

    in->deadline_ms = DEADLINE_NONE;
    in->agent = fork();
    if (in->agent < 0) {
        complain("fork");
        in->deadline_ms = now_ms() + REST_MS;
    }
    if (in->agent != 0)
        return;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    execl("/proc/self/exe", "chela-agent", (char *)NULL);
    _exit(127);
}

__attribute__((noreturn)) static void power_off(void)
{
    kill(-1, SIGTERM);
    for (int i = 0; i < 20 && waitpid(-1, NULL, WNOHANG) >= 0; i++)
        poll(NULL, 0, 50);
    kill(-1, SIGKILL);
    sync();
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL) < 0)
        complain("make the root read-only");
    sync();
    reboot(RB_POWER_OFF);
    for (;;)
        pause();
}

static void begin_end(struct init *in, const char *why)
{
    if (in->ending)
        return;
    in->ending = true;
    log_info("init: powering off", "because", LOG_STR(why));
    in->deadline_ms = now_ms() + STOP_MS;
    if (in->agent > 0)
        kill(in->agent, SIGTERM);
    else
        in->deadline_ms = now_ms();
}

static void agent_ended(struct init *in, int status)
{
    in->agent = -1;
    if (in->ending) {
        in->deadline_ms = now_ms();
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        begin_end(in, "the agent has ended");
    } else {
        log_error("init: the agent ended", "status", LOG_INT(status));
        in->deadline_ms = now_ms() + REST_MS;
    }
}

static void reap(struct init *in)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        if (pid == in->agent)
            agent_ended(in, status);
}

/* --- what happens --- */

static void on_signals(struct init *in)
{
    struct signalfd_siginfo si;

    while (read(in->signals, &si, sizeof(si)) == (ssize_t)sizeof(si))
        if (si.ssi_signo != SIGCHLD)
            begin_end(in, "of a signal");
    reap(in);
}

static void on_button(struct init *in, int fd)
{
    struct input_event ev;

    while (read(fd, &ev, sizeof(ev)) == (ssize_t)sizeof(ev))
        if (ev.type == EV_KEY && ev.code == KEY_POWER && ev.value)
            begin_end(in, "the button was pressed");
}

static void find_buttons(struct init *in)
{
    char path[32];

    in->looks++;
    for (int i = 0; i < BUTTONS_MAX && in->n_polls == 1 + (nfds_t)i; i++) {
        int fd;

        fmt_z(path, sizeof(path), "/dev/input/event%d", i);
        fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd >= 0)
            in->polls[in->n_polls++] = (struct pollfd){ fd, POLLIN, 0 };
    }
}

static int patience(const struct init *in)
{
    uint64_t now = now_ms(), ms;

    if (in->deadline_ms != DEADLINE_NONE) {
        ms = in->deadline_ms > now ? in->deadline_ms - now : 0;
        return ms < 1000 ? (int)ms : 1000;
    }
    return in->n_polls == 1 && in->looks < LOOKS_MAX ? 1000 : -1;
}

static void turn(struct init *in)
{
    int n = poll(in->polls, in->n_polls, patience(in));

    if (n > 0 && in->polls[0].revents)
        on_signals(in);
    for (nfds_t i = 1; n > 0 && i < in->n_polls; i++)
        if (in->polls[i].revents)
            on_button(in, in->polls[i].fd);
    if (in->n_polls == 1 && in->looks < LOOKS_MAX)
        find_buttons(in);
    if (in->deadline_ms == DEADLINE_NONE || now_ms() < in->deadline_ms)
        return;
    if (in->ending)
        power_off();
    start_agent(in);
}

void init_main(void)
{
    struct init in = { .agent = -1, .deadline_ms = DEADLINE_NONE };
    char seed[64];
    bool is_guest;
    sigset_t all;

    log_setup(LOG_INFO, LOG_TEXT);
    if (getpid() != 1) {
        log_error("init: only PID 1 of a guest may do that");
        _exit(2);
    }
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    mount_all();
    reboot(RB_DISABLE_CAD);
    is_guest = find_seed(seed, sizeof(seed));
    if (is_guest)
        setenv("AGENT_CONFIG", seed, 1);
    else
        log_warn("init: no disk with the serial " SEED_SERIAL);
    set_network(is_guest);
    if (is_guest)
        grow_root(); /* elsewhere the root is not ours */
    configure();
    in.signals = signalfd(-1, &all, SFD_NONBLOCK | SFD_CLOEXEC);
    in.polls[0] = (struct pollfd){ in.signals, POLLIN, 0 };
    in.n_polls = 1;
    start_agent(&in);
    for (;;)
        turn(&in);
}
