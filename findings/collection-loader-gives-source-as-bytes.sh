#!/usr/bin/env bash
# ansible-core 2.19.14: code that asks the import system for a module's source, as Python's documentation has it
# (`spec.loader.get_source`, a str), gets bytes for a module of a collection where Ansible's own loader imports it: in
# plugins on the controller, and under ansible-test. On a managed host the same module comes out of a zip file, whose
# loader gives a str. A digest over f"{source}" so differs between the two sides, and no error says so.
set -euo pipefail
temp=$(mktemp -d)
trap 'rm -r "$temp"' EXIT
cd "$temp"

python3 -m venv venv
venv/bin/pip install --quiet ansible-core==2.19.14
plugins=ansible_collections/an/example/plugins
mkdir -p $plugins/modules $plugins/module_utils $plugins/lookup
echo 'WORD = "x"' >$plugins/module_utils/word.py
touch $plugins/module_utils/__init__.py
cat >kind.py <<'END'
import importlib.util

NAME = "ansible_collections.an.example.plugins.module_utils.word"


def kind():
    import ansible_collections.an.example.plugins.module_utils.word  # so that it travels, too

    return type(importlib.util.find_spec(NAME).loader.get_source(NAME)).__name__
END
{ cat kind.py
  cat <<'END'


from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):
    def run(self, terms, variables=None, **kwargs):
        return [kind()]
END
} >$plugins/lookup/kind_of_source.py
{ cat kind.py
  cat <<'END'


from ansible.module_utils.basic import AnsibleModule

AnsibleModule({}).exit_json(kind=kind())
END
} >$plugins/modules/kind_of_source.py
cat >play.yml <<'END'
- hosts: localhost
  gather_facts: false
  tasks:
    - an.example.kind_of_source:
      register: host
    - ansible.builtin.copy:
        content: "controller {{ lookup('an.example.kind_of_source') }}, host {{ host.kind }}\n"
        dest: "{{ playbook_dir }}/seen"
END
ANSIBLE_COLLECTIONS_PATH=$PWD ANSIBLE_LOCALHOST_WARNING=false ANSIBLE_INVENTORY_UNPARSED_WARNING=false \
  venv/bin/ansible-playbook play.yml >output || { cat output; exit 1; }
echo 'controller bytes, host str' >expected
cat seen
diff expected seen
