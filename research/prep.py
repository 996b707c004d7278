import pickle, sys, numpy as np, csv

sys.path.insert(0, "/tmp/work/i5")
from nucseg_ray.storage.locations import Location
from nucseg_ray.storage.training_sets import find_training_set
from nucseg_ray.pipelines.samples import read_here
from nucseg_ray.pipelines.rows import unpack
from nucseg_ray.imaging.codecs import as_rgb
from nucseg_ray.imaging.normalise import Percentile

D = "/work/shared/data/dsb2018/"
ts = find_training_set(Location(D + "stage1_train"), index=Location(D + "stage1_train_index.csv"))
by = {s.image_id: s for s in ts.samples}
out = []
n = Percentile()
for t in read_here(ts):
    for r, i in enumerate(t.column("image_id").to_pylist()):
        im, la = unpack("image", t, r), unpack("labels", t, r)
        x = as_rgb(np.rint(n.normalise(im) * 255).astype(np.uint8))
        out.append(
            dict(
                id=i,
                kind=by[i].kind,
                fold=by[i].fold,
                group=by[i].group,
                raw=im.copy(),
                x=x,
                labels=la.astype(np.int32).copy(),
            )
        )
pickle.dump(out, open("/tmp/work/r5/bowl.pkl", "wb"), protocol=5)
print(len(out))
