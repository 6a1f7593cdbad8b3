"""Maps recorded datasets, one at a time: what `ovs3d map` and the workers of `ovs3d fleet` share."""
