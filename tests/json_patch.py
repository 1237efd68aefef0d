"""RFC 6902, as far as the sidecar's patches use it."""

import copy


def applied(thing, patch):
    """`thing` with `patch`; what is given stays as it is."""
    thing = copy.deepcopy(thing)
    for step in patch:
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        at = thing
        for part in path:
            at = at[int(part) if isinstance(at, list) else part]
        if isinstance(at, list):
            place = len(at) if last == "-" else int(last)
            if step["op"] == "add":
                at.insert(place, step["value"])
            elif step["op"] == "remove":
                del at[place]
            else:
                at[place] = step["value"]
        elif step["op"] == "remove":
            del at[last]
        else:
            at[last] = step["value"]
    return thing
