"""Files that netCDF opens and that are not what they seem, made by h5py, which the tests then do without."""

import base64
import zlib

_PACKED = {
    # a dataset that is stored in secret.bin
    "external storage": (
        "c-rgqaB<`1lHy|K;9!7(|4{Iq5yCfsiZ9I(_4W5~31VWXU=l)B2m@S93_vYxJPbgJF>y1@JP!t{fs~?DFR&AU7BGr1FfcJPGQu1V"
        "qnSk*7zGvVp?n7h6K)2R|I7>wtU%W>bFpgxbuxfm$grOgRVNHMz)S@Cl9>_aJD4a#3&WrQ4oOp9c(^(SfY=gHF{p<a?lYpQEly1?"
        "N-fb#%FKiC0sf3O)&"
    ),
    # a dataset that is put together from secret.nc
    "virtual": (
        "c-rgqaB<`1lHy|K;9!7(|4_gn0pS}!#T`34+5J6Sf|wX8n1qlO!T=W&10w?i8xI4JVl3MXGtYy8YM`w|?GD%piqaFgvXL<ZBclid"
        "0}~@7BMVe5jAj;LU=&oaXMlLnfx(2E!Q?+P0|P72wanZcd_a}VP)U&U85p)O3`wA?F{_th6pVsVFbYP&C?E#7JNx^9D?I_E3J?hF"
        "VG3XZ#i_|fsU>=O$qY#h%t+!OzyzvgL1IjdP(6&m+E>l;iV|GO0{+pk9tERd6pVsVFbYP&C>RB!U=)mkQ7{Sy3IG7OuQHk"
    ),
    # a link to a dataset of secret.nc
    "external link": (
        "c-rgqaB<`1lHy|K;9!7(|4^_Q$~S=0Q$xeL{XJZQm>4RUgpd`&02dPjBLf4QC<6l{hXZ3G9|J>iYI0F(iC$hZgMJbNgFOSK;Cyma0|45HB|Q"
    ),
    # the same among so many names that they are kept in a heap
    "dense link": (
        "c-rgqaB<`1lHy|K;9!7(|4@*}1K}G$#mkQ7zV-KT31VWX;9_E6WME(t0tw${g-GYJLDfYt&<s@mm74)|0>twFXaM3cS~}tA&J$}!"
        "oiOTzLF5Ft;9ysV$<XY_Xu-&E0>rR%m?(`^%OG$uiCRWoOiro@@(5sH2XdGg1Q;+1cMC=cAC_!@s!(Yt;3d*V79^bzqZNR39v4jP"
        "dK(XmQ;3HP11m@!H&7%+<0%`=4wx;|`yX|>1p`$vz}&~kfJ!6m3t*@K+5wX}$_x>gVnC(as<!WQ3h{AcV4eDRryRp{pb#HJ{QBu8"
        "44z<{E4$Rp8J2=Yk4|{!#*hpaeZybm$50Dqir#qY$4~%fa<pHIVAu>~iZZOrRV-$(0gLY299PT`24?#GJ>ATp1ZKY1ia!ig2V$OV"
        "-g1$l3(OR*2)xIj4`v={=51gY1@r);wZvels61Sp;O#{a&=TR|VPs%RH`ol%=1l2^W{e1q(M}|eu?-V~W3nHKW9r0=;Fx_u;+QXE"
        "L2xW0SP>k{ryMX2bGo5H1}75F@HLFb;lP;4$G}jWnp~7xqL-J<pr16FqsRmRjBaDY"
    ),
    # 4,000,000,000 numbers of which none is stored
    "huge": (
        "c-rgqaB<`1lHy|K;9!7(|4^`>5yCfsipN|0`{M8662!z%!6byN5C*uI7=T*Xco={bW8!9*c^(W@11UwRUSKBxEnpO3U|?coWMt6D"
        "eg~F>(##?ZjDiaG3=j`FFqm*NnEYpEU|{8AU}V-tc=LljhbRLB3ljqqvx5^qP@I_y<`IU441*u+S~6od06*3>>i"
    ),
}


HOSTILE = {name: zlib.decompress(base64.b85decode(packed)) for name, packed in _PACKED.items()}
"""The bytes of each."""
