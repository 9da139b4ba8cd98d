"""genesis.toml: a network as text that people exchange.

A network's name is the digest of what the text says, not of the text. Nothing has a default
here: two releases that disagreed on one would make two networks of one file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potd.config.home import write_atomically
from potd.config.mistakes import ConfigError
from potd.config.toml import quoted, read_toml, unknown_keys
from potd.wire.codec import Malformed, encode
from potd.wire.consensus import can_change_views
from potd.wire.genesis import PROTOCOL, SUPPLY_MAX, Allotment, Genesis, Parameters, genesis_digest

_KEYS = [one.name for one in dataclasses.fields(Genesis)]
_ALLOTMENT_KEYS = [one.name for one in dataclasses.fields(Allotment)]
_PARAMETERS = [one.name for one in dataclasses.fields(Parameters)]


def read_genesis(path: Path) -> Genesis:
    """The network that a file describes. Raises ConfigError with every mistake in it."""
    table = read_toml(path, "every node of a network has the same one: `potd genesis` makes it, `potd init` takes it")
    genesis, problems = parse_genesis(table)
    if genesis is None:
        raise ConfigError(f"{path}: {problem}" for problem in problems)
    return genesis


def write_genesis(path: Path, genesis: Genesis) -> None:
    """Write a network's file, wholly or not at all. Raises OSError."""
    write_atomically(path, genesis_text(genesis).encode())


def parse_genesis(table: Mapping[str, Any]) -> tuple[Genesis | None, list[str]]:
    """The network in a TOML table, or what is wrong with it."""
    problems = unknown_keys(table, _KEYS)
    problems += [f"{key!r} is missing" for key in _KEYS if key not in table]
    validators = _keys(table.get("validators", []), problems)
    balances = _balances(table.get("balances", []), problems)
    parameters = _parameters(table.get("parameters", {}), problems)
    protocol = table.get("protocol", PROTOCOL)
    if protocol != PROTOCOL:
        problems.append(f"'protocol' is {protocol!r}, and this release speaks {PROTOCOL}")
    if not can_change_views(len(validators), parameters.window_heights):
        problems.append(
            f"a new view by {len(validators)} validators with 'window_heights' {parameters.window_heights} would not "
            "fit a message: choose a smaller window"
        )
    if problems:
        return None, problems
    genesis = Genesis(table["name"], protocol, table["created_unix"], validators, balances, parameters)
    try:
        genesis_digest(genesis)
    except Malformed as error:
        return None, [str(error)]
    return genesis, []


def genesis_text(genesis: Genesis) -> str:
    """The TOML of a network; reading it gives the same network."""
    lines = [
        f"# Network {genesis_digest(genesis).hex()}",
        "# Every node of it has this file. Whoever changes anything below makes another network.",
        f"name = {quoted(genesis.name)}",
        f"protocol = {genesis.protocol}",
        f"created_unix = {genesis.created_unix}",
        "",
        "# Public keys of the validators, in the order in which they become primary.",
        "validators = [",
        *(f'    "{key.hex()}",' for key in genesis.validators),
        "]",
    ]
    if not genesis.balances:
        lines += ["balances = []"]
    lines += ["", "# What all nodes agree on. A tick is 50 ms; amounts are micro-units.", "[parameters]"]
    lines += [f"{name} = {getattr(genesis.parameters, name)}" for name in _PARAMETERS]
    for allotment in genesis.balances:
        lines += [
            "",
            "[[balances]]",
            f'owner_key = "{allotment.owner_key.hex()}"',
            f"amount_micro = {allotment.amount_micro}",
        ]
    return "\n".join(lines) + "\n"


def parse_key(text: object) -> bytes:
    """An Ed25519 public key from its 64 hexadecimal digits. Raises ValueError."""
    if not isinstance(text, str) or len(text) != 64:
        raise ValueError(f"{text!r} is not a public key: 64 hexadecimal digits, as `potd key` prints them")
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a public key: not hexadecimal") from None


def _keys(found: object, problems: list[str]) -> tuple[bytes, ...]:
    if not isinstance(found, list):
        problems.append("'validators' is not a list of public keys")
        return ()
    keys: list[bytes] = []
    for number, text in enumerate(found, 1):
        try:
            key = parse_key(text)
        except ValueError as error:
            problems.append(f"validator {number}: {error}")
            continue
        if key in keys:
            problems.append(f"validator {number}: {text} stands here twice")
        keys.append(key)
    if not found:
        problems.append("a network needs at least one validator")
    return tuple(keys)


def _balances(found: object, problems: list[str]) -> tuple[Allotment, ...]:
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        problems.append("'balances' is not a list of tables; each begins with [[balances]]")
        return ()
    allotments: list[Allotment] = []
    owners: set[bytes] = set()
    for number, table in enumerate(found, 1):
        where = f"balance {number}"
        problems += [f"{where}: {one}" for one in unknown_keys(table, _ALLOTMENT_KEYS)]
        amount = table.get("amount_micro")
        if type(amount) is not int or not 0 <= amount <= SUPPLY_MAX:
            problems.append(f"{where}: 'amount_micro' is {amount!r}, not a whole number from 0 to {SUPPLY_MAX}")
            amount = 0
        try:
            owner = parse_key(table.get("owner_key"))
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if owner in owners:
            problems.append(f"{where}: {owner.hex()} has one already")
        owners.add(owner)
        allotments.append(Allotment(owner, amount))
    supply = sum(allotment.amount_micro for allotment in allotments)
    if supply > SUPPLY_MAX:
        problems.append(f"the balances add up to {supply} micro-units, at most {SUPPLY_MAX}")
    return tuple(allotments)


def _parameters(found: object, problems: list[str]) -> Parameters:
    if not isinstance(found, dict):
        problems.append("'parameters' is not a table; it begins with [parameters]")
        return Parameters()
    problems += [f"parameters: {one}" for one in unknown_keys(found, _PARAMETERS)]
    parameters = Parameters()
    for name in _PARAMETERS:
        if name not in found:
            problems.append(f"parameters: {name!r} is missing")
            continue
        changed = dataclasses.replace(parameters, **{name: found[name]})
        try:
            encode(changed)  # the message knows its own limits
        except Malformed as error:
            problems.append(str(error).replace("Parameters.", "parameters: "))
            continue
        parameters = changed
    return parameters
