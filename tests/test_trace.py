"""Traces: what is read is what was recorded, and a line that is wrong is named."""

import gzip

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predis_lab.bench import trace
from predis_lab.bench.operations import Verb
from predis_lab.bench.trace import TraceError, read_trace

GOOD = """\
100,nz:u:aa,7,120,1,get,0
100,"b,2,0,2,gets,0
101,"b,2,300,2,set,3600
103,c,1,50,1,add,60
103,c,1,60,1,replace,60
104,c,1,55,1,cas,60
105,c,1,5,1,append,60
105,c,1,6,3,prepend,60
105,n,1,4,3,incr,60
106,n,1,4,3,decr,60
107,nz:u:aa,7,0,1,delete,0
"""


@pytest.fixture
def write(tmp_path):
    """Writes a trace under a name whose end tells how it is compressed."""

    def write(text, name="trace.csv"):
        raw = text if isinstance(text, bytes) else text.encode()
        if name.endswith(".gz"):
            raw = gzip.compress(raw)
        elif name.endswith(".zst"):
            raw = pa.compress(raw, "zstd", asbytes=True)
        path = tmp_path / name
        path.write_bytes(raw)
        return path

    return write


@pytest.mark.parametrize("name", ["trace.csv", "trace", "trace.gz", "trace.csv.zst"])
def test_a_trace_is_read_as_it_was_recorded(write, name):
    found = read_trace(write(GOOD, name))
    operations = found.operations
    store, change = Verb.WRITE, Verb.READ_MODIFY_WRITE
    assert operations.verb.tolist() == [
        *(Verb.READ, Verb.READ, store, store, store, store),
        *(change, change, change, change, Verb.DELETE),
    ]
    assert operations.record.tolist() == [0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 0]
    assert operations.value_nbytes.tolist() == [0, 0, 300, 50, 60, 55, 5, 6, 4, 4, 0]
    assert operations.start_s.tolist() == [0, 0, 1, 3, 3, 4, 5, 5, 5, 6, 7]
    assert operations.ttl_s.tolist() == [0, 0, 3600, 60, 60, 60, 60, 60, 60, 60, 0]
    dtypes = [getattr(operations, name).dtype for name in ("verb", "record", "value_nbytes")]
    assert dtypes == [np.uint8, np.int64, np.int32]
    assert found.data.keys(np.arange(4)).to_pylist() == [b"nz:u:aa", b'"b', b"c", b"n"]
    assert found.data.value_nbytes(np.arange(4)).tolist() == [120, 300, 60, 4]


def test_every_operation_of_the_format_has_a_verb():
    names = "get gets set add replace cas append prepend delete incr decr"
    assert sorted(trace.VERBS) == sorted(names.split())


def test_batches_of_a_trace_have_its_keys_and_sizes(write):
    found = read_trace(write(GOOD))
    first, last = found.operations.batches(found.data, 6)
    assert first.read_keys.to_pylist() == [b"nz:u:aa", b'"b']
    assert first.write_keys.to_pylist() == [b'"b', b"c", b"c", b"c"]
    assert [len(value) for value in first.write_values.to_pylist()] == [300, 50, 60, 55]
    assert last.delete_keys.to_pylist() == [b"nz:u:aa"]
    assert last.read_keys.to_pylist() == last.write_keys.to_pylist() == [b"c", b"c", b"n", b"n"]


rows = st.tuples(
    st.integers(0, 3),
    st.binary(min_size=1, max_size=30).filter(lambda key: not set(key) & set(b",\r\n")),
    st.integers(0, 2**31 - 1),
    st.sampled_from(sorted(trace.VERBS)),
    st.integers(0, 2**31 - 1),
)


@settings(deadline=None, max_examples=50)
@given(requests=st.lists(rows, min_size=1, max_size=30), end=st.sampled_from(["\n", "\r\n"]))
def test_a_trace_makes_the_round_trip(tmp_path_factory, requests, end):
    path = tmp_path_factory.mktemp("trace") / "drawn"
    seconds = np.cumsum([request[0] for request in requests]) + 1_583_020_800
    with path.open("wb") as file:
        for second, (_, key, nbytes, verb, ttl) in zip(seconds, requests, strict=True):
            line = f",{len(key)},{nbytes},9,{verb},{ttl}{end}"
            file.write(b"%d," % second + key + line.encode())
    found = read_trace(path)
    operations = found.operations
    assert found.data.keys(operations.record).to_pylist() == [request[1] for request in requests]
    assert (operations.start_s == seconds - seconds[0]).all()
    for row, (_, _, nbytes, name, ttl) in enumerate(requests):
        verb = trace.VERBS[name]
        stores = verb in (Verb.WRITE, Verb.READ_MODIFY_WRITE)
        assert operations.verb[row] == verb
        assert operations.value_nbytes[row] == nbytes * stores
        assert operations.ttl_s[row] == ttl * stores
    assert found.data.count == len({request[1] for request in requests})


def long(n):
    return [f"{row // 9},key-{row // 2},9,100,1,get,0\n" for row in range(n)]


def test_a_trace_longer_than_a_block_keeps_its_numbers(write):
    path = write("".join(long(120_000)))  # 3 MB, and new keys to the end
    found = read_trace(path)
    assert found.data.count == 60_000
    assert np.array_equal(found.operations.record, np.arange(120_000) // 2)
    assert found.data.keys(np.array([59_999])).to_pylist() == [b"key-59999"]
    assert len(read_trace(path, most=100_000).operations) == 100_000


@pytest.mark.parametrize("most", [1, 5, 11, 50])
def test_the_first_requests_of_a_trace(write, most):
    path = write(GOOD)
    found = read_trace(path, most=most)
    whole = read_trace(path).operations
    assert len(found.operations) == min(most, 11)
    assert np.array_equal(found.operations.record, whole.record[:most])
    assert found.data.count == whole.record[:most].max() + 1


WRONG = {
    "100,k,1,5,1,get": "6 columns, not 7",
    "100,k,1,5,1,get,0,0": "8 columns, not 7",
    "": "b'' is no operation",
    "100,,0,5,1,get,0": "b'' is an empty key",
    "100,k,1,5,1,fetch,0": "b'fetch' is no operation",
    "100,k,1,5,1,GET,0": "b'GET' is no operation",
    "now,k,1,5,1,get,0": "b'now' is no timestamp",
    "100.5,k,1,5,1,get,0": "b'100.5' is no timestamp",
    "9999999999999999999,k,1,5,1,get,0": "b'9999999999999999999' is no timestamp",
    "100,k,one,5,1,get,0": "b'one' is no key size",
    "100,k,1,,1,get,0": "b'' is no value size",
    "100,k,1,-5,1,get,0": "b'-5' is no value size",
    "100,k,1,0x5,1,get,0": "b'0x5' is no value size",
    "100,k,1,2147483648,1,set,0": "b'2147483648' is too large a value size",
    "100,k,1,5,1,set,1h": "b'1h' is no TTL",
    "100,k,1,5,1,set,2147483648": "b'2147483648' is too large a TTL",
    "99,k,1,5,1,get,0": "time goes back from 100 s to 99 s",
}


@pytest.mark.parametrize("line", WRONG)
@pytest.mark.parametrize("before", [1, 3])
def test_a_line_that_is_wrong_is_named(write, line, before):
    good = "100,k,1,5,1,get,0\n"
    path = write(good * before + line + "\n" + "100,k,1,5,1,get,0\n")
    with pytest.raises(TraceError) as raised:
        read_trace(path)
    assert str(raised.value) == f"{path}: line {before + 1}: {WRONG[line]}"


def test_bytes_that_are_no_text_are_named_too(write):
    path = write(b"100,k,1,5,1,get,0\n100,k,1,\xff\xfe,1,get,0\n")
    with pytest.raises(TraceError, match=r"line 2: b'\\xff\\xfe' is no value size"):
        read_trace(path)


@pytest.mark.parametrize(
    ("line", "what"), [("1,k,1,5,1,get", "6 columns"), ("1,k,1,x,1,get,0", "b'x' is no value size")]
)
def test_a_line_far_into_a_trace_is_named(write, line, what):
    lines = long(100_000)
    lines[90_000] = line + "\n"
    with pytest.raises(TraceError, match=f"line 90001: {what}"):
        read_trace(write("".join(lines)))


def test_a_trace_without_requests_is_refused(write):
    with pytest.raises(TraceError, match=r"trace\.csv: Empty CSV file"):
        read_trace(write(""))
    with pytest.raises(TraceError, match="no requests"):
        read_trace(write(GOOD), most=0)


def test_a_trace_that_was_cut_off_is_refused(write):
    path = write("".join(long(50_000)), "trace.zst")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(TraceError, match=r"trace\.zst"):
        read_trace(path)


def test_a_trace_that_is_not_there_is_missed_as_any_file_is(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "none.csv")
