#!/bin/sh
# The model in the box, from nothing: fetch the corpus (pinned by hash), train, judge.
#   training/box-model.sh WORK_FOLDER
# Needs Debian's apt and dpkg-deb, and `pip install -e '.[train]'`. Runs again where it stopped.
set -eu

work=${1:?"usage: $0 WORK_FOLDER"}
shipped=$(cd "$(dirname "$0")/../core/pd_core/assets/skipv1-python-5m" && pwd)
mkdir -p "$work/packages"
cd "$work"

fetch() { # name, version, architecture, sha256, folder
    file="packages/$1_$2_$3.deb"
    [ -e "$file" ] || (cd packages && apt-get download "$1=$2")
    # apt writes characters of a version in percent form.
    [ -e "$file" ] || mv "packages/$1_$(echo "$2" | sed 's/:/%3a/')_$3.deb" "$file"
    echo "$4  $file" | sha256sum --check --quiet || {
        echo "$file is damaged or another one: remove it and start again" >&2
        exit 1
    }
    dpkg-deb -x "$file" "$5"
}

# Once Debian has moved on, these very files are at snapshot.debian.org: put them into packages/.
version=3.11.2-6+deb12u9
fetch python3.11-doc "$version" all 5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be files
fetch libpython3.11-stdlib "$version" amd64 10f13e000ee757f5f2d2d3569f9e30546214a0c850acd78695feae373bfa3e53 files
fetch libpython3.11-minimal "$version" amd64 69f41cfa3f4ba17284e538f843069d7529c53c207d2ae17a5b02785944870e33 files

# What Debian packs apart from the library: begins functions, further below.
fetch idle-python3.11 "$version" all c066b167e4630e16d6aade9a4c1475a4063aec8da9d6f4a5ca9ac9d9645488fd further
fetch python3.11-examples "$version" all 370eeff2a6bdf14d062c3eb19f81236e29216e3df039cf7b73c23df26eedee45 further
fetch python3-distutils 3.11.2-3 all a620b555f301860a08e30534c7e6f7d79818e5e1977bfec39a612e7003074318 further
fetch python3-lib2to3 3.11.2-3 all 4e7f5e01e49a0622d10db3d0995666a6ead6a369cd127a996e9a4f9e91696a51 further
fetch python3-tk 3.11.2-3 amd64 33badffb9316204fda015b1a9d331c03bd322dfbb217930de5dd5ca95b6af7d2 further

if [ ! -e corpus ]; then
    rm -rf corpus.new
    mkdir corpus.new
    cp -rL files/usr/share/doc/python3.11/html/_sources corpus.new/docs
    cp -r files/usr/lib/python3.11 corpus.new/stdlib
    mv corpus.new corpus
fi

# Left out: tests, codecs and generated tables.
for pattern in '*/test/*' '*/tests/*' '*/encodings/*' '*/pydoc_data/*' '*/_sysconfigdata*' \
    '*/html/entities.py' '*/stringprep.py' '*/token.py' '*/keyword.py'; do
    set -- "$@" --exclude "$pattern"
done
shift

[ -e tokenizer.json ] ||
    pd-train tokenizer corpus "$@" --vocab-size 4096 --held-out 0.04 --out tokenizer.json
[ -e data ] || pd-train prepare corpus "$@" --tokenizer tokenizer.json --held-out 0.04 --out data

# Three quarters of the tokens at a context of 512 and a constant rate, the last quarter at 2,048
# while the rate falls. Started again, both go on where they stopped.
model="--hidden 256 --layers 6 --heads 8 --kv-heads 4 --inter 736 --skip-v1 --max-context 2048"
common="--dtype bfloat16 --optimiser conda --lr 0.008 --evaluate-every 200 --checkpoint-every 200"
resume() { [ ! -e "$1/run.json" ] || echo --resume; }
# The options are words: they are meant to be split.
# shellcheck disable=SC2046,SC2086
[ -e short/model ] ||
    pd-train pretrain data short $model $common --steps 6600 --context 512 --batch 8 \
        --schedule constant --warmup 0.0333 --conda-period 220 $(resume short)
# shellcheck disable=SC2046,SC2086
[ -e long/model ] ||
    pd-train uptrain short/model data long $common --steps 2200 --context 2048 --batch 2 \
        --warmup 0.02 --floor 0.02 --save-dtype bfloat16 $(resume long)

# How it is sampled, and its template: of the model's files those that nobody trains.
for file in generation_config.json tokenizer_config.json chat_template.jinja; do
    cp "$shipped/$file" long/model/
done

# What the model itself wrote and Python parses, each text three times beside the corpus: 900 steps
# on that, and fewer functions fail.
[ -e functions.jsonl ] ||
    pd-train functions long/model corpus further "$@" --held-out 0.04 --count 4000 \
        --out functions.jsonl
if [ ! -e data-functions ]; then
    cp functions.jsonl functions-2.jsonl
    cp functions.jsonl functions-3.jsonl
    pd-train prepare corpus functions.jsonl functions-2.jsonl functions-3.jsonl "$@" \
        --tokenizer tokenizer.json --held-out 0.04 --out data-functions
fi
# shellcheck disable=SC2046
[ -e last/model ] ||
    pd-train uptrain long/model data-functions last --optimiser conda --conda-period 60 \
        --lr 0.002 --steps 900 --context 2048 --batch 2 --warmup 0.05 --floor 0.05 --compile \
        --evaluate-every 300 --checkpoint-every 300 --save-dtype bfloat16 $(resume last)

pd-train evaluate last/model data --context 2048
pd-train judge last/model data --count 504
