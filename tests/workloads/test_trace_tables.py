"""Are the rows of CSV and Parquet tables read as they mean, and wrong ones named?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.workloads.samples import expected, found
from vmsim.base.errors import InputError
from vmsim.workloads import Kind, readers
from vmsim.workloads.export import describe


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"page": [1]}, "columns 'page'"),
        ({"address": [1, None]}, "address is empty in 1"),
        ({"address": [0.5]}, "of type double"),
        ({"address": [1], "kind": [3]}, "row 0: kind = 3"),
        ({"address": [1, 2], "kind": ["r", "q"]}, "row 1: kind 'q'"),
        ({"address": [1, 2], "count": [1, 0]}, "row 1: count = 0"),
        ({"address": [1, 1 << 57]}, "row 1: address 0x200000000000000"),
        ({"address": [1], "VA": [2]}, "columns 'address', 'VA': each may be the address"),
        ({"address": [1], "size": [0]}, "row 0: size = 0: expected 1 to 65536"),
        ({"address": pa.array([], pa.int64())}, "no access"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(table: dict, message: str, folder: Path):
    path = folder / "wrong.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(InputError, match=message):
        describe(path)


class TestTables:
    """Hand-made tables: what each row means is counted by hand."""

    @pytest.mark.parametrize(
        ("text", "runs"),
        [
            (b'size,address\n"1,024",4096\n"2,048",8192\n', [(4096, 0, 1), (8192, 0, 1)]),
            (b'"address","kind"\n"0x1000","W"\n', [(0x1000, 1, 1)]),
            (b'"a ""b"", c",address\n"1\n2",0x1000\n"",0x2000\n', [(0x1000, 0, 1), (0x2000, 0, 1)]),
            (b"address,size,kind\n0x1ffc,8,R\n", [(0x1000, 0, 1), (0x2000, 0, 1)]),
            (b"address,size,kind\n0x1ffc,4,R\n0x1ffd,4,W\n", [(0x1000, 0, 1), (0x1000, 1, 1), (0x2000, 1, 1)]),
            (b"n,address,rw\n1,0x1000,R\n2,0x2000,W\n3,0x3000,R\n", [(0x1000, 0, 1), (0x2000, 1, 1), (0x3000, 0, 1)]),
            (b",address,kind\n0,0x1000,R\n1,0x1008,R\n", [(0x1000, 0, 2)]),
            (b"index,addr\n7,0x1000\n8,0x2000\n", [(0x1000, 0, 1), (0x2000, 0, 1)]),
            (b"Address , RW\n 0x1000 , r \n", [(0x1000, 0, 1)]),
            (b"address,is_write\n4096,True\n4096,False\n", [(4096, 1, 1), (4096, 0, 1)]),
            (b"address,write\n4096,true\n4096,false\n", [(4096, 1, 1), (4096, 0, 1)]),
            (b"address,kind,count\n0x1000,st,3\n", [(0x1000, 1, 3)]),
            (b"address,size,count\n0x1ffc,8,3\n", [(0x1000, 0, 3), (0x2000, 0, 3)]),
            (b"0x80000000000000,W\n0xff80000000000000,R\n", [(1 << 55, 1, 1), (-(1 << 55), 0, 1)]),
        ],
    )
    def test_csv(self, text: bytes, runs: list[tuple[int, int, int]], folder: Path):
        path = folder / "table.csv"
        path.write_bytes(text)
        assert found(path) == runs
        assert found(path, "csv") == runs

    def test_which_columns_were_taken_is_said(self, folder: Path):
        path = folder / "named.csv"
        path.write_bytes(b"n,VA,rw,Bytes\n1,0x1000,R,8\n")
        told = describe(path)
        assert told["columns"] == {"address": "VA", "kind": "rw", "size": "Bytes"}
        assert told["unused_columns"] == ["n"]
        assert told["left_out"] == {"sizes": 1}

    def test_an_index_of_pandas_is_no_count(self, folder: Path):
        path = folder / "indexed.parquet"
        frame = pd.DataFrame(
            {"address": [0x1FFC, 0x3000, 0x3008], "size": [8, 1, 1]}, index=pd.Index([5, 6, 9], name="count")
        )
        frame.to_parquet(path)
        runs = [(0x1000, 0, 1), (0x2000, 0, 1), (0x3000, 0, 2)]
        assert found(path) == runs
        frame.set_index("address").to_parquet(path)
        assert found(path) == runs
        frame.to_csv(path.with_suffix(".csv"), index=False)
        assert found(path.with_suffix(".csv")) == runs

    def test_where_blocks_of_text_end_does_not_matter(self, folder: Path):
        path = folder / "long.csv"
        those = [(4096 * (n % 7) + n % 4096, Kind(n % 3)) for n in range(300_000)]
        rows = "".join(f'{kind.name.lower()},{address:#x},"line\none, two"\n' for address, kind in those)
        path.write_text(f"kind,address,note\n{rows}")  # some 10 MB
        assert found(path) == expected(those)

    def test_large_accesses_by_lines_take_bounded_memory(self, folder: Path):
        path = folder / "wide.csv"
        path.write_bytes(b"address,size\n" + b"0,65536\n" * 3000)
        runs = [chunk.address for chunk in readers.read(path, granule=64)]
        assert sum(map(len, runs)) == 3000 * 1024
        assert np.array_equal(np.concatenate(runs)[:2048] % 65536, np.tile(np.arange(0, 65536, 64), 2))


def test_counts_of_a_table_are_kept(folder: Path):
    path = folder / "counts.csv"
    path.write_bytes(b"0x1000,w,5\n0x1008,W,2147483647\n4096,1,2\n")
    assert found(path) == [(0x1000, 1, 5), (0x1000, 1, 2147483647), (0x1000, 1, 2)]
