"""The rules of the programming model that users trip over, in our words, and which release brings those that wait.

Numbered ones ("8.1" to "8.25") and those with a star are the ones that are easily got wrong; the rest is tested beside.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Rule:
    """`later`: what brings it, where it is not built yet. `star`: one of those that are easily got wrong."""

    name: str
    says: str
    star: bool = False
    later: str = ""


def star(name: str, says: str, later: str = "") -> Rule:
    return Rule(name, says, star=True, later=later)


STORES = "stores: volumes in full, dicts and queues"
SCHEDULES = "schedules"
WEB = "web endpoints"
SERVE = "serve and reload"
SANDBOXES = "sandboxes"

RULES = (
    # --- what goes for everything ---
    Rule("1.0 both ways", "what waits for something blocks, and has a twin .aio that doesn't"),
    star("1.0 user iterators", "an iterable of the user's is run on the thread, or loop, of whoever asked for results"),
    star("1.0 from_name", "looking something up asks nobody; that it isn't there comes out when it is used"),
    star(
        "1.0 handles as arguments", "functions, classes, objects and calls can be passed, returned and kept in closures"
    ),
    # --- apps ---
    star("1.1 include", "an app that includes another gets its functions, not its local entrypoints"),
    star("1.1 no retries", "retries= on a generator or a web endpoint is refused where it is said"),
    Rule("1.1 run refused", "an app that runs can't be run again, nor while its file is imported"),
    Rule("1.1 serialized", "serialized=True sends a function with all that it holds on to, secrets' values apart"),
    # --- images ---
    star("1.2 apt is not sorted", "apt packages count in the order in which they are written"),
    star("1.2 run_function key", "the text of the function counts, functions that it calls don't"),
    star("1.2 deferred", "files that are added without copy are no layer, and no build step may follow them"),
    star("1.2 local Python", "an image without a version has the Python that the user has"),
    # --- functions ---
    star("1.3 no direct call", "a function is called by .remote or .local, never by itself"),
    star("1.3 local enters", ".local of a method runs the enter hooks once; of an async method when it is awaited"),
    Rule("1.3 lookup has no code", "a function that was looked up can't be run here"),
    star("1.3 lazy map", "a map does nothing before it is iterated, and warns where that never happens"),
    star("1.3 first failure", "the first input that failed raises when its turn has come, and ends the map"),
    Rule("1.3 early stop", "a consumer that stops gives up what has not begun"),
    Rule("1.3 for_each", "for_each waits for all and gives nothing"),
    Rule("1.3 async map", "a blocking map where a loop runs is refused and names its twin"),
    Rule("1.3 generators are not mapped", "maps refuse generators"),
    Rule("1.3 remote_gen", "generators are called by remote_gen, other functions not"),
    Rule("1.3 spawn", "a spawned call goes on without its caller"),
    Rule("1.3 from_id", "a call is found by its id, by anybody"),
    Rule("1.3 gather", "gather gives all results, or raises the first failure while the others go on"),
    Rule("1.3 call graph", "a call knows the calls that its code made"),
    star("1.3 spawn_map", "spawn_map starts all and gives no handle"),
    Rule("1.3 experimental_spawn_map", "one call of many inputs, whose results are had one by one"),
    star("1.3 get times out", "FunctionCall.get raises the builtin TimeoutError for what isn't over in time"),
    Rule("1.3 with_options", "options make a variant with workers of its own; min_containers isn't one of them"),
    Rule("1.3 autoscaling", "min, max and buffer of workers are kept, and can be changed while they run"),
    # --- classes ---
    star("1.4 instantiate first", "methods belong to objects: the class alone says so"),
    Rule("1.4 methods", "a method can do all that a function can"),
    Rule("1.4 parameters", "parameters are named, of four types, and each set has workers of its own"),
    Rule("1.4 inheritance", "methods and hooks come from bases too, the bases' hooks first"),
    Rule("1.4 exit", "exit hooks run after the last input"),
    Rule("1.4 self", "methods call each other through self"),
    Rule("1.4 local attributes", "an object has the attributes of a local instance"),
    # --- several at a time ---
    Rule("1.5 concurrent", "a worker takes several inputs at a time, in threads or as tasks"),
    Rule("1.5 batched", "inputs are collected up to a number, or for a time"),
    Rule("1.5 order of decorators", "decorators stand below the app's"),
    # --- schedules, retries ---
    star("1.6 redeploy", "a redeploy starts a Period anew, not a Cron", later=SCHEDULES),
    Rule("1.6 retries", "retries= counts attempts after the first, at least a second apart"),
    Rule("1.6 ranges", "what Retries takes has bounds"),
    Rule("1.6 timeout per attempt", "each attempt has the whole timeout"),
    # --- stores ---
    star("1.7 commit reloads", "commit of a volume reloads it too", later=STORES),
    star("1.7 consistency", "a volume is as it was at the start until it is reloaded", later=STORES),
    star("1.9 local environ", "Secret.from_local_environ has no values in a worker, where nobody reads it again"),
    star("1.10 keys", "keys of a Dict are the same where their pickles are", later=STORES),
    star(
        "1.11 empty", "an empty queue gives None where nobody waits, and raises queue.Empty where somebody did", STORES
    ),
    # --- sandboxes ---
    star("1.12 credentials", "a sandbox can't reach the engine, and nobody reaches it", later=SANDBOXES),
    star("1.12 timeout", "a command that took too long in a sandbox ends with -1", later=SANDBOXES),
    star("1.12 logs", "a sandbox's logs are those of its first command", later=SANDBOXES),
    # --- where am I ---
    star("1.14 is_local", "False in the process that runs a function, True in its children"),
    Rule("1.14 ids", "the ids of call and input are context variables, set where an input is worked on"),
    # --- errors ---
    star("1.17 TimeoutError", "the TimeoutError of slipway.exception is not the builtin"),
    Rule("1.17 classes", "the errors that programs catch hang together as the model says"),
    Rule("1.17 InputCancellation", "InputCancellation is no Exception"),
    # --- apps that run ---
    star("3.1 siblings", "functions in closures of functions can be called in workers"),
    Rule("3.2 script", "a script goes alone, to /root"),
    Rule("3.2 package", "a package goes whole, to /root"),
    star("3.2 other modules", "other local modules don't go along by themselves; a warning says what to add"),
    Rule("3.2 conditions", "a function that the file has here and not there is told as that"),
    Rule("3.2 __main__", "what a program defines is the same class here and in a worker"),
    Rule("3.2 no file", "functions of a prompt run, sent by value"),
    Rule("3.2 notebooks", "functions of a notebook's cells run, sent by value, and are replaced without a word"),
    # --- calls ---
    Rule("3.3 window", "a map takes a bounded number of inputs ahead"),
    Rule("3.3 spawned retries", "spawned calls and maps are retried as .remote is"),
    star("3.4 main thread", "a plain function runs on the main thread, so that it may use signals"),
    Rule("3.4 reuse", "workers take one input after the other and keep their state"),
    Rule("3.4 one at a time", "without @concurrent a worker has one input at a time"),
    Rule("3.4 start-up", "what fails at the start of a worker is no failure of an input"),
    Rule("3.4 batches", "lists go in, a list as long comes out, one failure is all the batch's"),
    Rule("3.4 type checks", "a plain function can't return a coroutine or a generator"),
    Rule("3.4 generators", "items come as they are made, not faster than they are taken"),
    Rule("3.4 cancellation", "running code is told to end, and ended where it does not listen"),
    Rule("3.4 SystemExit", "SystemExit in a function is a failure of the call like any other"),
    Rule("3.5 types", "an exception comes as itself, with the remote traceback and its source lines"),
    Rule("3.5 timeout", "a timeout raises FunctionTimeoutError and ends the attempt"),
    Rule("3.5 typed reasons", "a worker that died says of what"),
    Rule("3.7 scale to zero", "workers end when there is nothing to do"),
    Rule("3.8 snapshot", "what ran before the snapshot runs once, and every worker has it"),
    Rule("3.9", "a lost worker's inputs run again"),
    # --- the checklist ---
    Rule("8.1", "maps: lazy, zipped to the shortest, in order, failures when reached, bare exceptions, kwargs to all"),
    Rule("8.2", "FunctionCall.get: builtin TimeoutError, again and again, OutputExpiredError in the end"),
    Rule("8.3", "queues: None, queue.Empty, queue.Full", later=STORES),
    Rule("8.4", "files added without copy: no layer, no rebuild, no step after them"),
    Rule("8.5", "pip packages sorted, apt not; run_function by text and values; tags don't change"),
    Rule("8.6", "the user's own Python version; the default image is built when first used"),
    Rule("8.7", "only the app's own file or package goes along"),
    Rule("8.8", "plain inputs on the main thread, async ones and hooks on one loop"),
    Rule("8.9", "cancellation: InputCancellation, CancelledError, or the end of the worker"),
    Rule("8.10", "a failing enter: ephemeral apps give up with the original exception, deployed ones go on trying"),
    Rule("8.11", "volumes: a view, commits, reloads", later=STORES),
    Rule(
        "8.12", "retries: never generators, web, cancellations; lost workers apart; a second at least; fresh timeouts"
    ),
    Rule("8.13", "web endpoints are called by their URL", later=WEB),
    Rule("8.14", "classes: no access without an object, parameters by name, pools, no __init__"),
    Rule("8.15", "variants: workers of their own, volumes and secrets replaced, no min_containers"),
    Rule("8.16", "secrets: later ones win, env= last; None left out"),
    Rule("8.17", "a deploy is all or nothing, and nothing where nothing changed"),
    Rule("8.18", "serve: a fresh interpreter, the same app", later=SERVE),
    Rule("8.19", "handles travel, closures hold siblings, functions call functions, maps nest"),
    Rule("8.20", "exceptions keep their type; what can't be pickled or imported is told as that"),
    Rule("8.21", "is_local is True in child processes (and in sandboxes, later)"),
    Rule("8.22", "batches: transposed, lists as long, one error for all"),
    Rule("8.23", "sandboxes: exit codes", later=SANDBOXES),
    Rule("8.24", "generators: every item, no retries, an early stop ends them"),
    Rule("8.25", "slipway run reads its arguments from the signature"),
)
