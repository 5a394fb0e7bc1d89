"""Reads configuration files with oslo.config and the option list of Zaqar, and prints what it finds as JSON.

    reference.py schema                    every registered option
    reference.py read  < requests.json     the values of several sets of files, one after the other
    reference.py redis < uris.json         what each URI of a Redis says, null for one that is refused

A request is {"arguments": [...], "env": {...}}, with the arguments of zaqar-server; the answer to it is {"error": TEXT}, when the files cannot be
read, or {"values": {GROUP: {OPTION: {"value": ...} or {"error": TEXT}}}}. Each request is read in a process of its own,
because options of authentication plugins are registered once they are known.
"""

import json
import logging
import math
import os
import sys


def register(conf):
    """Registers what zaqar-server registers on its way to serving requests."""
    from keystonemiddleware.auth_token import _opts  # noqa: F401
    from oslo_log import log
    from oslo_reports import opts as report_options
    from osprofiler import opts as profiler_options
    from zaqar.cmd import server
    from zaqar.common import auth  # noqa: F401
    from zaqar.common import cache
    from zaqar.conf import opts as zaqar_options
    from zaqar.transport.middleware import cors

    report_options.set_defaults(conf)
    conf.register_cli_opts(server._CLI_OPTIONS)
    log.register_options(conf)
    for group, options in zaqar_options.list_opts_by_group():
        conf.register_opts(options, group=group)
    profiler_options.set_defaults(conf)
    cache.register_config(conf)
    from oslo_policy import opts as policy_options

    policy_options._register(conf)
    cors.CORSMiddleware.install(lambda *_: None, None, conf)


def load_plugins(conf):
    """Registers the options of the authentication plugins that the files name, as the first request would."""
    from keystoneauth1 import loading

    for group in ("keystone_authtoken", "trustee"):
        try:
            loading.register_auth_conf_options(conf, group)
            loading.load_auth_from_conf_options(conf, group)
        except Exception:  # the plugin lacks an option, or does not exist
            pass


def plain(value):
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value


def value(conf, group, name):
    try:
        found = conf[name] if group is None else conf[group][name]
        return {"value": plain(found)}
    except RecursionError:
        return {"error": "RecursionError"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def groups(conf):
    yield None, {name: entry["opt"] for name, entry in conf._opts.items()}
    for group in conf._groups.values():
        yield group.name, {name: entry["opt"] for name, entry in group._opts.items()}


def read(request):
    from oslo_config import cfg

    conf = cfg.CONF
    try:
        conf(request["arguments"], project="zaqar", prog="zaqar-server")
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"}
    try:
        load_plugins(conf)
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"}
    # The last one appears when a former name is reported.
    skipped = {"config_file", "config_dir", "config_source", "shell_completion", "fatal_deprecations"}
    return {
        "values": {
            group or "DEFAULT": {
                name: value(conf, group, name) for name in options if name not in skipped
            }
            for group, options in groups(conf)
        }
    }


def schema():
    from oslo_config import cfg

    conf = cfg.CONF
    register(conf)
    conf([], project="zaqar", prog="zaqar-server", default_config_files=[], default_config_dirs=[])
    from keystoneauth1 import loading

    for plugin in ("password", "v3password", "v3applicationcredential"):
        for option in loading.get_auth_plugin_conf_options(plugin):
            try:
                conf.register_opt(option, group="plugin:" + plugin)
            except cfg.DuplicateOptError:
                pass
    found = []
    for group, options in groups(conf):
        for name, option in options.items():
            found.append(
                {
                    "group": group or "DEFAULT",
                    "name": name,
                    "file_name": option.name,
                    "type": repr(option.type),
                    "kind": type(option.type).__name__,
                    "multi": bool(option.multi),
                    "secret": bool(option.secret),
                    "default": plain(option.default),
                    "deprecated": [[each.group, each.name] for each in option.deprecated_opts],
                }
            )
    return found


def answer(request):
    """Reads a request in a child, so that nothing that it registers is left for the next one."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        for name in [name for name in os.environ if name.startswith("OS_")]:
            del os.environ[name]
        os.environ.update(request.get("env", {}))
        with os.fdopen(write_end, "w") as out:
            json.dump(read(request), out, default=str)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as found:
        text = found.read()
    os.waitpid(child, 0)
    return json.loads(text)


def redis(uri):
    from zaqar.storage.redis import driver

    try:
        found = driver.ConnectionURI(uri)
    except Exception:
        return None
    if found.strategy == driver.STRATEGY_TCP:
        target = {"host": [found.hostname, found.port]}
    elif found.strategy == driver.STRATEGY_UNIX:
        target = {"socket": found.unix_socket_path}
    else:
        target = {
            "sentinels": [list(sentinel) for sentinel in found.sentinels],
            "master": found.master,
            "sentinel_login": [found.sentinel_username, found.sentinel_password],
        }
    return {
        "login": [found.username, found.password],
        "database": found.dbid,
        "socket_timeout": found.socket_timeout,
        "target": target,
    }


def main():
    if sys.argv[1] == "redis":
        json.dump([redis(uri) for uri in json.load(sys.stdin)], sys.stdout)
        return
    if sys.argv[1] == "schema":
        json.dump(schema(), sys.stdout, default=str, indent=1)
        return
    from oslo_config import cfg

    register(cfg.CONF)
    logging.disable()
    json.dump([answer(request) for request in json.load(sys.stdin)], sys.stdout)


main()
