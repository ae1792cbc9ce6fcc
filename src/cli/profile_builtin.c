/* SPDX-License-Identifier: MIT */
/*
 * cli/profile_builtin.c — the profiles that come with the program, by the names and sizes of the
 * original's. Packages are Debian's and Ubuntu's.
 */
#include "cli/hub.h"

/* clang-format off */
const struct profile_builtin profile_builtins[] = {
    { "builder",
      "{\"name\":\"builder\",\"description\":\"Compiles and packs software\","
      "\"resources\":{\"cpu\":4,\"memory\":\"8G\",\"disk\":\"30G\"},"
      "\"environment\":{\"CI\":\"true\"},"
      "\"files\":[],"
      "\"packages\":[\"git\",\"curl\",\"ca-certificates\",\"build-essential\",\"pkg-config\",\"cmake\","
      "\"ninja-build\",\"python3\",\"python3-venv\",\"nodejs\",\"npm\",\"jq\"],"
      "\"repositories\":[],"
      "\"setup_tasks\":[{\"type\":\"exec\",\"command\":\"cc --version && make --version && git --version\","
      "\"description\":\"the tools are there\"}]}" },
    { "deployer",
      "{\"name\":\"deployer\",\"description\":\"Carries releases to other machines\","
      "\"resources\":{\"cpu\":2,\"memory\":\"4G\",\"disk\":\"20G\"},"
      "\"environment\":{},"
      "\"files\":[],"
      "\"packages\":[\"git\",\"curl\",\"ca-certificates\",\"openssh-client\",\"rsync\",\"ansible\",\"jq\","
      "\"unzip\"],"
      "\"repositories\":[],"
      "\"setup_tasks\":[{\"type\":\"exec\",\"command\":\"mkdir -p -m 700 ~/.ssh && ssh -V\","
      "\"description\":\"a place for keys\"}]}" },
    { "docker-host",
      "{\"name\":\"docker-host\",\"description\":\"Runs containers\","
      "\"resources\":{\"cpu\":4,\"memory\":\"8G\",\"disk\":\"40G\"},"
      "\"environment\":{},"
      "\"files\":[{\"path\":\"/etc/docker/daemon.json\",\"content\":"
      "\"{\\n  \\\"log-driver\\\": \\\"json-file\\\",\\n  \\\"log-opts\\\": {\\\"max-size\\\": \\\"10m\\\", "
      "\\\"max-file\\\": \\\"3\\\"}\\n}\\n\"}],"
      "\"packages\":[\"ca-certificates\",\"curl\",\"docker.io\",\"git\"],"
      "\"repositories\":[],"
      "\"setup_tasks\":[{\"type\":\"exec\",\"command\":\"systemctl enable --now docker && docker version\","
      "\"sudo\":true,\"description\":\"Docker runs\"}]}" },
    { "researcher",
      "{\"name\":\"researcher\",\"description\":\"Reads, searches and evaluates\","
      "\"resources\":{\"cpu\":2,\"memory\":\"6G\",\"disk\":\"25G\"},"
      "\"environment\":{},"
      "\"files\":[],"
      "\"packages\":[\"git\",\"curl\",\"ca-certificates\",\"python3\",\"python3-venv\",\"python3-pip\","
      "\"python3-requests\",\"jq\",\"ripgrep\",\"poppler-utils\",\"pandoc\"],"
      "\"repositories\":[],"
      "\"setup_tasks\":[{\"type\":\"exec\",\"command\":\"mkdir -p ~/notes && python3 --version\","
      "\"description\":\"a place for notes\"}]}" },
    { "tester",
      "{\"name\":\"tester\",\"description\":\"Runs the tests of others\","
      "\"resources\":{\"cpu\":2,\"memory\":\"4G\",\"disk\":\"20G\"},"
      "\"environment\":{\"CI\":\"true\",\"NODE_ENV\":\"test\"},"
      "\"files\":[],"
      "\"packages\":[\"git\",\"curl\",\"ca-certificates\",\"build-essential\",\"python3\",\"python3-venv\","
      "\"python3-pytest\",\"nodejs\",\"npm\",\"jq\"],"
      "\"repositories\":[],"
      "\"setup_tasks\":[{\"type\":\"exec\",\"command\":\"python3 -m pytest --version\","
      "\"description\":\"a test runner is there\"}]}" },
    { NULL, NULL },
};
/* clang-format on */
