import pickle,sys,score,decode
P=pickle.load(open(sys.argv[1],'rb'))
for r,sm,mv in ((.35,.12,.1),(.45,.12,.1),(.45,.16,.05),(.35,.2,.05),(.55,.16,.05),(.45,.2,.02)):
    score.show(f'V r={r} sm={sm} minv={mv}',score.score(P,decode.V,r=r,sm=sm,minv=mv))
