/* SPDX-License-Identifier: MIT */
/*
 * machine/multipass_guest.c — what is put into a Multipass instance, by `transfer` and `exec`: one
 * program without libraries, its configuration (0600, of a user of its own without sudo), a unit.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "machine/multipass_int.h"
#include "machine/qemu_int.h"

#define AGENT_HELD  "/tmp/chela-agent"
#define GATEWAY_MAX 45

struct str multipass_user_data(struct arena *a)
{
    return STR("#cloud-config\n"
               "package_update: true\n"
               "packages: [git, curl, build-essential, nodejs]\n"
               "users:\n"
               "  - default\n"
               "  - name: vm-agent\n"
               "    shell: /bin/bash\n"
               "    lock_passwd: true\n");
}

static const char unit[] = "[Unit]\n"
                           "Description=OpenClaw VM Agent\n"
                           "After=network.target\n"
                           "StartLimitIntervalSec=0\n"
                           "[Service]\n"
                           "Type=simple\n"
                           "User=vm-agent\n"
                           "WorkingDirectory=/opt/vm-agent\n"
                           "Environment=AGENT_CONFIG=/etc/vm-agent/config.json\n"
                           "ExecStart=/opt/vm-agent/chela-agent\n"
                           "Restart=always\n"
                           "RestartSec=10\n"
                           "StateDirectory=vm-agent\n"
                           "LogsDirectory=vm-agent\n"
                           "NoNewPrivileges=yes\n"
                           "[Install]\n"
                           "WantedBy=multi-user.target\n";

/* Scripts of ours, whole: no word of a user is in them. $1 is where a file goes, $2 its mode; the
 * file comes by standard input and never lies about readable. */
static const char put_file[] =
    "set -e; umask 077; mkdir -p \"$(dirname \"$1\")\"; chmod 0755 \"$(dirname \"$1\")\"; "
    "cat >\"$1.new\"; chmod \"$2\" \"$1.new\"; "
    "chown vm-agent:vm-agent \"$1.new\"; mv \"$1.new\" \"$1\"";
static const char install_agent[] =
    "set -e; id vm-agent >/dev/null 2>&1 || useradd --create-home --shell /bin/bash vm-agent; "
    "mkdir -p /opt/vm-agent /etc/vm-agent; chown vm-agent:vm-agent /opt/vm-agent; "
    "mv " AGENT_HELD " /opt/vm-agent/chela-agent; chmod 0755 /opt/vm-agent/chela-agent";
static const char run_agent[] =
    "set -e; systemctl daemon-reload; systemctl enable vm-agent; systemctl restart vm-agent";

static const struct str nothing = { NULL, 0 };

static CO int root_sh(const struct machine_job *job, const char *script, const char *one,
                      const char *two, struct str input, struct err *e)
{
    const char *const args[] = { "exec", job->spec->name, "--", "sudo", "sh",
                                 "-c",   script,          "sh", one,    two,
                                 NULL };

    return multipass_do(job, args, input, NULL, e);
}

/* "default via 10.1.2.1 dev …": the host as the guest sees it. */
static int gateway_parse(struct str text, struct arena *a, const char **ret, struct err *e)
{
    static const char word[] = "default via ";
    const char *at = text.n ? memmem(text.p, text.n, word, sizeof(word) - 1) : NULL;
    size_t n = 0, left;

    if (at) {
        at += sizeof(word) - 1;
        left = (size_t)(text.p + text.n - at);
        while (n < left && n < GATEWAY_MAX && ((at[n] >= '0' && at[n] <= '9') || at[n] == '.'))
            n++;
    }
    if (n < 7)
        return err_set(e, ERR_INTERNAL,
                       "the instance has no default gateway: how is it to reach "
                       "the hub? (--hub-url)");
    *ret = arena_strndup(a, at, n);
    return 0;
}

static CO int hub_url(const struct machine_job *job, struct arena *a, const char **ret,
                      struct err *e)
{
    const char *const args[] = { "exec",  job->spec->name, "--",      "ip", "-4",
                                 "route", "show",          "default", NULL };
    AUTO(buf_done) struct buf out = { 0 };
    const char *gateway;

    if (job->spec->hub_url && job->spec->hub_url[0]) {
        *ret = job->spec->hub_url;
        return 0;
    }
    buf_init(&out, TOOL_OUTPUT_MAX);
    if (multipass_do(job, args, nothing, &out, e) < 0 ||
        gateway_parse(buf_str(&out), a, &gateway, e) < 0)
        return -(int)e->code;
    *ret = arena_printf(a, "ws://%s:%u", gateway, job->host->ws_port);
    return 0;
}

static CO int put_agent(const struct machine_job *job, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *agent = arena_printf(&a, "%s-static", job->host->agent);
    const char *const transfer[] = { "transfer", agent,
                                     arena_printf(&a, "%s:" AGENT_HELD, job->spec->name), NULL };

    if (access(agent, R_OK) < 0)
        return err_set(e, ERR_UNAVAILABLE,
                       "%s is missing: an instance needs an agent without "
                       "libraries",
                       agent);
    if (multipass_do(job, transfer, nothing, NULL, e) < 0)
        return -(int)e->code;
    return root_sh(job, install_agent, "", "", nothing, e);
}

CO int multipass_provision(const struct machine_job *job, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *const wait[] = { "exec",   job->spec->name, "--", "cloud-init",
                                 "status", "--wait",        NULL };
    struct str config;
    const char *url;

    if (job->progress)
        job->progress("waiting for cloud-init", job->arg);
    if (multipass_do(job, wait, nothing, NULL, e) < 0 || hub_url(job, &a, &url, e) < 0 ||
        seed_agent_config(job->spec, url, NULL, &a, &config, e) < 0)
        return -(int)e->code;
    if (job->progress)
        job->progress("installing the agent", job->arg);
    if (put_agent(job, e) < 0 ||
        root_sh(job, put_file, "/etc/vm-agent/config.json", "0600", config, e) < 0 ||
        root_sh(job, put_file, "/etc/systemd/system/vm-agent.service", "0644",
                (struct str){ unit, sizeof(unit) - 1 }, e) < 0)
        return err_wrap(e, "agent");
    return root_sh(job, run_agent, "", "", nothing, e);
}
