#!/usr/bin/env bash
# ansible-core 2.19.14: an import of module_utils below `if TYPE_CHECKING:`, which Python never runs, travels to each host
# all the same, with all that it imports in turn. Ansible reads a module's imports from its syntax, whatever stands around
# them. Types that are for mypy alone so cost bytes at each execution on each host.
set -euo pipefail
temp=$(mktemp -d)
trap 'rm -r "$temp"' EXIT
cd "$temp"

python3 -m venv venv
venv/bin/pip install --quiet ansible-core==2.19.14
plugins=ansible_collections/an/example/plugins
mkdir -p $plugins/modules $plugins/module_utils
echo 'from ansible_collections.an.example.plugins.module_utils import shapes_of_shapes' >$plugins/module_utils/shapes.py
touch $plugins/module_utils/shapes_of_shapes.py
cat >$plugins/modules/what_travelled.py <<'END'
from __future__ import annotations

import sys
import zipfile
from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from ansible_collections.an.example.plugins.module_utils import shapes

archive = next(path for path in sys.path if zipfile.is_zipfile(path))
names = [name.rpartition("/")[2] for name in zipfile.ZipFile(archive).namelist()]
module = AnsibleModule({})
module.exit_json(
    travelled=sorted(name for name in names if name.startswith("shapes")),
    imported=sorted(name for name in sys.modules if "shapes" in name),
)
END
ANSIBLE_COLLECTIONS_PATH=$PWD ANSIBLE_CALLBACK_RESULT_FORMAT=json ANSIBLE_LOCALHOST_WARNING=false venv/bin/ansible localhost \
  -m an.example.what_travelled | sed 's/^localhost.*=> {/{/' |
  python3 -c 'import json, sys; told = json.load(sys.stdin); print(told["travelled"], told["imported"])' >seen
cat >expected <<'END'
['shapes.py', 'shapes_of_shapes.py'] []
END
cat seen
diff expected seen
