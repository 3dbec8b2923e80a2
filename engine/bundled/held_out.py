"""Write ``assets/data/held-out.jsonl.xz``, the texts on which bundled models are evaluated.

python -m engine.bundled.held_out

Run it only when the bundled models are trained again, because all published numbers change.
"""

from engine.evaluation.data.corpora import all_documents, all_passages, library_version
from engine.evaluation.data.documents import LIBRARIES
from engine.evaluation.data.held_out import HELD_OUT_FILE, write_held_out
from engine.evaluation.progress import ignore_progress


def main() -> None:
    versions = {library: library_version(library) for library in LIBRARIES}
    rows = {"docs": all_documents(ignore_progress), "libraries": all_passages(ignore_progress)}
    write_held_out(HELD_OUT_FILE, versions, rows)
    print(f"{HELD_OUT_FILE}: {HELD_OUT_FILE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
